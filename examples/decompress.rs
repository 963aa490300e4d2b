//! Decodes every tensor of a DF11 model and says how fast: `decompress MODEL`
fn main() {}
