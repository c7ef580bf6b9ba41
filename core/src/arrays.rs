//! Named arrays of single-precision numbers as safetensors: optimizer moments, running statistics.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The arrays, flat and under their names, as a safetensors file.
pub fn to_bytes(arrays: &[(String, Vec<f32>)]) -> Result<Vec<u8>, String> {
    let bytes: Vec<(&String, usize, Vec<u8>)> = arrays
        .iter()
        .map(|(name, values)| (name, values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes
        .iter()
        .map(|(name, len, bytes)| {
            TensorView::new(Dtype::F32, vec![*len], bytes).map(|view| (*name, view)).map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

/// The arrays of a safetensors file, in the order of their names.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<(String, Vec<f32>)>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut arrays = file
        .iter()
        .map(|(name, view)| {
            if view.dtype() != Dtype::F32 {
                return Err(format!("{name}: expected 32-bit floats, found {:?}", view.dtype()));
            }
            let (words, _) = view.data().as_chunks::<4>();
            Ok((name.to_owned(), words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    arrays.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_bit_for_bit() {
        let arrays = vec![
            ("a".to_owned(), vec![1.0f32, -0.0, f32::MIN_POSITIVE / 2.0]),
            ("b.1".to_owned(), vec![]),
            ("c".to_owned(), vec![f32::INFINITY]),
        ];
        let read = from_bytes(&to_bytes(&arrays).unwrap()).unwrap();
        let bits = |arrays: &[(String, Vec<f32>)]| -> Vec<(String, Vec<u32>)> {
            arrays.iter().map(|(n, v)| (n.clone(), v.iter().map(|x| x.to_bits()).collect())).collect()
        };
        assert_eq!(bits(&read), bits(&arrays));
        assert!(from_bytes(b"not safetensors").is_err());
    }
}
