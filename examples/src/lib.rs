//! The jobs themselves are the files beside this folder; run one with `cargo run --release --example word_count`.
