//! Compiles `thalweg/v1/*.proto` with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<_> = std::fs::read_dir("thalweg/v1")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    println!("cargo:rerun-if-changed=thalweg/v1");
    let descriptors = protox::compile(&files, ["."])?;
    // Ordered maps: the same message always has the same bytes and the same place in the Raft log.
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        // Rare in a message that is otherwise small.
        .boxed(".thalweg.v1.TaskStatusChanged.counters")
        .compile_fds(descriptors)?;
    Ok(())
}
