//! Choosing a compute device by name.
//!
//! Devices are found with `Device::enumerate` alone: it is safe on a machine without a driver, where constructing a
//! CUDA device would panic at its first operation.

use burn::tensor::Device;

use crate::error::CoreError;

/// A device and why it was chosen.
#[derive(Debug, Clone)]
pub struct SelectedDevice {
    /// The device, without autodiff.
    pub device: Device,
    /// Its name: `cpu`, `cuda:N` or `wgpu:N`.
    pub name: String,
    /// Why it was chosen, for the user.
    pub reason: String,
}

/// A kind of accelerator that this program may or may not be built with.
struct Accelerator {
    name: &'static str,
    built: bool,
    enumerate: fn() -> Vec<Device>,
    absent: &'static str,
}

/// Accelerators in the order of preference of `auto`.
const ACCELERATORS: [Accelerator; 2] = [
    Accelerator {
        name: "cuda",
        built: cfg!(feature = "cuda"),
        enumerate: cuda_devices,
        absent: "a CUDA device needs an NVIDIA GPU and its driver",
    },
    Accelerator {
        name: "wgpu",
        built: cfg!(feature = "wgpu"),
        enumerate: wgpu_devices,
        absent: "a wgpu device needs a GPU with a Vulkan, Metal or DirectX 12 driver",
    },
];

fn cuda_devices() -> Vec<Device> {
    #[cfg(feature = "cuda")]
    return Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

fn wgpu_devices() -> Vec<Device> {
    #[cfg(feature = "wgpu")]
    return Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    #[cfg(not(feature = "wgpu"))]
    Vec::new()
}

/// The names of all devices of this machine that this program can use, the CPU first.
pub fn list_devices() -> Vec<String> {
    let accelerators = ACCELERATORS
        .iter()
        .flat_map(|kind| (0..(kind.enumerate)().len()).map(|index| format!("{}:{index}", kind.name)));
    std::iter::once("cpu".to_string()).chain(accelerators).collect()
}

/// What each kind of accelerator lacks on this machine, as one line each, for a report.
pub fn missing_accelerators() -> Vec<String> {
    ACCELERATORS.iter().filter(|kind| (kind.enumerate)().is_empty()).map(why_absent).collect()
}

fn why_absent(kind: &Accelerator) -> String {
    if kind.built {
        format!("{}: no device found ({})", kind.name, kind.absent)
    } else {
        format!("{0}: built without the {0} feature", kind.name)
    }
}

/// The device called `name`: `auto`, `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`. `auto` prefers an accelerator.
pub fn select_device(name: &str) -> Result<SelectedDevice, CoreError> {
    match name {
        "auto" => Ok(choose_automatically()),
        "cpu" => Ok(cpu("asked for")),
        _ => {
            let (kind, index) = parse(name)?;
            let mut devices = (kind.enumerate)();
            if index < devices.len() {
                let device = devices.swap_remove(index);
                return Ok(SelectedDevice {
                    device,
                    name: format!("{}:{index}", kind.name),
                    reason: "asked for".into(),
                });
            }
            let how_to_get = if kind.built {
                kind.absent.to_string()
            } else {
                format!("build with `--features {}`, or use run.device=cpu", kind.name)
            };
            Err(CoreError::Device { asked: name.into(), found: list_devices().join(", "), how_to_get })
        }
    }
}

fn choose_automatically() -> SelectedDevice {
    for kind in &ACCELERATORS {
        if let Some(device) = (kind.enumerate)().into_iter().next() {
            return SelectedDevice {
                device,
                name: format!("{}:0", kind.name),
                reason: format!("the first {} device found", kind.name),
            };
        }
    }
    cpu(&ACCELERATORS.iter().map(why_absent).collect::<Vec<_>>().join("; "))
}

fn cpu(reason: &str) -> SelectedDevice {
    SelectedDevice { device: Device::flex(), name: "cpu".into(), reason: reason.into() }
}

fn parse(name: &str) -> Result<(&'static Accelerator, usize), CoreError> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let accelerator = ACCELERATORS.iter().find(|accelerator| accelerator.name == kind);
    match (accelerator, index.parse()) {
        (Some(accelerator), Ok(index)) => Ok((accelerator, index)),
        _ => Err(CoreError::Device {
            asked: name.into(),
            found: list_devices().join(", "),
            how_to_get: "a device name is one of auto, cpu, cuda, cuda:N, wgpu, wgpu:N".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        let selected = select_device("cpu").unwrap();
        assert_eq!((selected.name.as_str(), selected.reason.as_str()), ("cpu", "asked for"));
        assert!(!selected.device.is_autodiff());
        assert_eq!(list_devices()[0], "cpu");
    }

    #[test]
    fn unknown_names_list_the_known() {
        for name in ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"] {
            let error = select_device(name).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("one of auto, cpu, cuda, cuda:N"), "{error}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_in_says_how_to_get_it() {
        let error = select_device("cuda:0").unwrap_err();
        assert!(error.to_string().starts_with("device \"cuda:0\" is not there: found cpu"), "{error}");
        assert!(error.to_string().ends_with("build with `--features cuda`, or use run.device=cpu"), "{error}");
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    fn auto_says_why_it_is_the_cpu() {
        let selected = select_device("auto").unwrap();
        assert_eq!(selected.name, "cpu");
        assert_eq!(selected.reason, "cuda: built without the cuda feature; wgpu: built without the wgpu feature");
    }
}
