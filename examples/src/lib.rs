//! The jobs themselves are the files beside this folder; run one with `cargo run --release -p thalweg-examples --example word_count`.
