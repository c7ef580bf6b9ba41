//! `hotfire doctor`: what this machine offers, what is missing and the mend.

use hotfire_core::device::{list_devices, missing_accelerators, select_device};

pub fn doctor() -> anyhow::Result<()> {
    println!("hotfire {}", env!("CARGO_PKG_VERSION"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("threads     {threads}");
    println!("CPU         {} ({})", std::env::consts::ARCH, cpu_features().join(", "));
    println!("devices     {}", list_devices().join(", "));
    let auto = select_device("auto")?;
    println!("auto        {}: {}", auto.name, auto.reason);
    for line in missing_accelerators() {
        println!("missing     {line}");
    }
    if cfg!(debug_assertions) {
        println!("warning     this is a debug build: run `cargo run --release -- ...` for full speed");
    }
    let probe = tempfile_in("runs");
    match probe {
        Ok(()) => println!("runs/       can be written"),
        Err(error) => println!("runs/       cannot be written ({error}): set run.dir to a writable directory"),
    }
    Ok(())
}

/// The vector extensions that the kernels can choose from.
fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("sse2", is_x86_feature_detected!("sse2")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
        ];
        features.extend(known.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    if features.is_empty() {
        features.push("baseline");
    }
    features
}

/// Whether a file can be made in a directory, or the directory itself where it does not exist yet.
fn tempfile_in(dir: &str) -> std::io::Result<()> {
    let existed = std::path::Path::new(dir).exists();
    std::fs::create_dir_all(dir)?;
    let file = format!("{dir}/.doctor");
    let result = std::fs::write(&file, b"").and_then(|()| std::fs::remove_file(&file));
    if !existed {
        std::fs::remove_dir(dir)?;
    }
    result
}
