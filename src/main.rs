//! The program: parse arguments, boot, exit code.
fn main() {}
