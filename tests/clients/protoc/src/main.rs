//! Stands in for `protoc` where `prost-build` runs it, so that no C++ program is needed:
//! `protoc --include_imports --include_source_info -o OUT [-I DIR]... FILE...`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use protox::Compiler;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut output, mut includes, mut files) = (None, Vec::new(), Vec::new());
    let (mut imports, mut source_info) = (false, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--include_imports" => imports = true,
            "--include_source_info" => source_info = true,
            "-o" => output = Some(PathBuf::from(arguments.next().context("-o FILE")?)),
            "-I" => includes.push(arguments.next().context("-I DIR")?),
            "--version" => {
                println!("libprotoc 3.21.0");
                return Ok(());
            }
            flag if flag.starts_with('-') => bail!("no flag {flag}"),
            file => files.push(file.to_owned()),
        }
    }
    let output = output.context("-o FILE says where the result goes")?;
    let mut compiler = Compiler::new(includes)?;
    compiler
        .include_imports(imports)
        .include_source_info(source_info)
        .open_files(files)?;
    fs::write(&output, compiler.encode_file_descriptor_set())
        .with_context(|| format!("write {}", output.display()))
}
