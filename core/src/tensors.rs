//! Modules and named arrays as safetensors, with readable names and deterministic bytes.
//!
//! Burn identifies parameters by random ids, which differ between processes. Here a tensor is named by its path in the
//! module (`actor.weights.0`); the ids of the module that is loaded into are put back while loading. Values are kept bit
//! for bit. The functions report problems as text; [`crate::checkpoint`] adds the file they are in.

use std::collections::{BTreeMap, HashMap};

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, DType};
use burn_pack::{Reader, Tensor, Writer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// A module's parameters as a safetensors file.
pub fn module_to_bytes<M: Module>(module: &M) -> Result<Vec<u8>, String> {
    encode(module_tensors(module)?)
}

/// Loads the parameters of a safetensors file into a module of the same shape.
pub fn module_from_bytes<M: Module>(module: M, bytes: &[u8]) -> Result<M, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut ids = HashMap::new();
    for tensor in module_tensors(&module)? {
        let found = file.tensor(&tensor.name).map_err(|_| format!("{}: is missing", tensor.name))?.shape().to_vec();
        if found != tensor.shape.to_vec() {
            let (name, expected) = (&tensor.name, tensor.shape.to_vec());
            return Err(format!(
                "{name}: expected the shape {expected:?}, found {found:?}: these are the weights of a network of other \
                 settings"
            ));
        }
        ids.extend(tensor.param_id.map(|id| (tensor.name.clone(), id)));
    }
    let tensors = file
        .iter()
        .map(|(name, view)| decode_tensor(name.to_string(), ids.get(name).copied(), &view))
        .collect::<Result<Vec<_>, _>>()?;
    let packed = Writer::new(tensors).into_bytes().map_err(|error| error.to_string())?;
    let record = ModuleRecord::from_bytes(packed).map_err(|error| error.to_string())?;
    module.try_load_record(record).map_err(|error| error.to_string())
}

/// Named arrays of floats as a safetensors file.
pub fn arrays_to_bytes(arrays: &[(&str, &[f32])]) -> Result<Vec<u8>, String> {
    let tensors = arrays.iter().map(|(name, values)| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(name.to_string(), DType::F32, vec![values.len()], None, Bytes::from_bytes_vec(bytes))
    });
    encode(tensors.collect())
}

/// Named arrays of floats with their shapes, as a safetensors file.
pub fn shaped_arrays_to_bytes(arrays: &[(String, Vec<usize>, &[f32])]) -> Result<Vec<u8>, String> {
    let tensors = arrays.iter().map(|(name, shape, values)| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(name.clone(), DType::F32, shape.clone(), None, Bytes::from_bytes_vec(bytes))
    });
    encode(tensors.collect())
}

/// The arrays that [`arrays_to_bytes`] wrote.
pub fn arrays_from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Vec<f32>>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let array = |(name, view): (&str, TensorView<'_>)| match view.dtype() {
        Dtype::F32 => {
            let values = view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            Ok((name.to_string(), values.collect()))
        }
        other => Err(format!("{name}: expected type F32, found {other:?}")),
    };
    file.iter().map(array).collect()
}

fn module_tensors<M: Module>(module: &M) -> Result<Vec<Tensor>, String> {
    let packed = module.clone().into_record().into_bytes().map_err(|error| error.to_string())?;
    Reader::from_bytes(packed).and_then(Reader::into_tensors).map_err(|error| error.to_string())
}

fn encode(tensors: Vec<Tensor>) -> Result<Vec<u8>, String> {
    struct Parts {
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Bytes,
    }
    let parts = tensors
        .into_iter()
        .map(|tensor| {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(|error| error.to_string())?;
            let dtype = to_safetensors(dtype).ok_or_else(|| format!("{name}: no safetensors type for {dtype:?}"))?;
            Ok(Parts { name, dtype, shape: shape.to_vec(), bytes })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let views = parts
        .iter()
        .map(|part| Ok((part.name.as_str(), TensorView::new(part.dtype, part.shape.clone(), &part.bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| error.to_string())?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

fn decode_tensor(name: String, id: Option<u64>, view: &TensorView<'_>) -> Result<Tensor, String> {
    let dtype =
        from_safetensors(view.dtype()).ok_or_else(|| format!("{name}: type {:?} is not known", view.dtype()))?;
    Ok(Tensor::new(name, dtype, view.shape().to_vec(), id, Bytes::from_bytes_vec(view.data().to_vec())))
}

const TYPES: [(DType, Dtype); 13] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool(burn::tensor::BoolStore::Native), Dtype::BOOL),
];

fn to_safetensors(dtype: DType) -> Option<Dtype> {
    TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, dtype)| *dtype)
}

fn from_safetensors(dtype: Dtype) -> Option<DType> {
    TYPES.iter().find(|(_, known)| *known == dtype).map(|(dtype, _)| *dtype)
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Tensor as BurnTensor};

    use super::*;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<BurnTensor<2>>,
        bias: Option<Param<BurnTensor<1>>>,
    }

    #[derive(Module, Debug)]
    struct Net {
        layers: Vec<Layer>,
        log_std: Param<BurnTensor<1>>,
    }

    fn net(width: usize, scale: f32) -> Net {
        let device = Device::flex().autodiff();
        let ramp = |length: usize| {
            let values: Vec<f32> = (0..length).map(|index| (index as f32 * 0.37).sin() * scale).collect();
            BurnTensor::<1>::from_floats(values.as_slice(), &device)
        };
        let layer = |bias: bool| Layer {
            weight: Param::from_tensor(ramp(3 * width).reshape([3, width])),
            bias: bias.then(|| Param::from_tensor(ramp(width))),
        };
        Net { layers: vec![layer(true), layer(false)], log_std: Param::from_tensor(ramp(2)) }
    }

    fn bits(net: &Net) -> Vec<u8> {
        module_to_bytes(net).unwrap()
    }

    #[test]
    fn names_are_paths_and_values_keep_their_bits() {
        let trained = net(4, 1.0);
        let bytes = bits(&trained);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<&str> = file.names();
        names.sort_unstable();
        assert_eq!(names, ["layers.0.bias", "layers.0.weight", "layers.1.weight", "log_std"]);
        let loaded = module_from_bytes(net(4, 0.0), &bytes).unwrap();
        assert_ne!(bits(&net(4, 0.0)), bytes);
        assert_eq!(bits(&loaded), bytes);
    }

    #[test]
    fn bytes_do_not_depend_on_parameter_ids() {
        assert_eq!(bits(&net(4, 1.0)), bits(&net(4, 1.0)));
        assert_ne!(bits(&net(4, 1.0)), bits(&net(4, 0.5)));
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let bytes = bits(&net(4, 1.0));
        let problem = module_from_bytes(net(5, 1.0), &bytes).unwrap_err();
        assert!(problem.starts_with("layers.0.bias: expected the shape [5], found [4]"), "{problem}");
        let single = module_from_bytes(net(4, 1.0).layers.remove(0), &bytes).unwrap_err();
        assert!(single.ends_with(": is missing"), "{single}");
    }

    #[test]
    fn special_floats_keep_their_bits() {
        let values = [f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 3.0, 0.1];
        let bytes = arrays_to_bytes(&[("b", &values), ("a", &[])]).unwrap();
        let arrays = arrays_from_bytes(&bytes).unwrap();
        assert_eq!(arrays["b"].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
        assert!(arrays["a"].is_empty());
        let weight = BurnTensor::<2>::from_floats([values], &Device::flex());
        let module = Layer { weight: Param::from_tensor(weight), bias: None };
        let loaded = module_from_bytes(module.clone(), &module_to_bytes(&module).unwrap()).unwrap();
        let loaded: Vec<f32> = loaded.weight.val().try_into_vec_as().unwrap();
        assert_eq!(loaded.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
    }
}
