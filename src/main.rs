//! The `hotfire` command.
fn main() {}
