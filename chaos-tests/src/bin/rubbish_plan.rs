//! A binary that answers plan mode with rubbish.

fn main() {
    println!("THALWEG-PLAN {{\"vertices\": 12, ");
}
