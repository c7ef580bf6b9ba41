//! With the feature `python`, programs find the libpython that they were linked with when they run.

fn main() {
    #[cfg(feature = "python")]
    pyo3_build_config::add_libpython_rpath_link_args();
}
