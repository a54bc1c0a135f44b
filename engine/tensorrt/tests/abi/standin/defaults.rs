//! For each of the vendor's abstract classes one that implements every function by ending the process.
//!
//! The stand-in derives from these and implements what it means to. They are made from the vendor's own headers, so
//! the tables of functions are the vendor's too, in order and in number.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Header, namespace, classes.
const CLASSES: [(&str, &str, &[&str]); 3] = [
    (
        "NvInferImpl.h",
        "nvinfer1::apiv",
        &[
            "VHostMemory",
            "VRuntime",
            "VCudaEngine",
            "VExecutionContext",
            "VTensor",
            "VNetworkDefinition",
            "VOptimizationProfile",
            "VTimingCache",
            "VBuilderConfig",
            "VBuilder",
        ],
    ),
    ("NvInferRuntimeCommon.h", "nvinfer1", &["IPluginRegistry"]),
    (
        "NvOnnxParser.h",
        "nvonnxparser",
        &["IParser", "IParserError"],
    ),
];

/// The text of `defaults.h`.
pub(crate) fn write(include: &[std::path::PathBuf]) -> String {
    let mut text = String::from("#include <cstdlib>\n");
    for (header, space, classes) in CLASSES {
        let source = include
            .iter()
            .find_map(|folder| fs::read_to_string(folder.join(header)).ok())
            .unwrap_or_else(|| panic!("{header} is in none of the folders"));
        let source = without_comments(&source);
        writeln!(text, "namespace {space} {{").unwrap();
        for class in classes {
            writeln!(text, "class {class}Defaults : public {class} {{\npublic:").unwrap();
            let functions = pure_functions(body(&source, class, Path::new(header)));
            assert!(!functions.is_empty(), "{class} has no pure functions");
            for function in functions {
                writeln!(text, "    {function} override {{ std::abort(); }}").unwrap();
            }
            writeln!(text, "}};").unwrap();
        }
        writeln!(text, "}}").unwrap();
    }
    text
}

fn without_comments(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        text.push_str(line.split("//").next().unwrap_or_default());
        text.push('\n');
    }
    while let Some(start) = text.find("/*") {
        let end = text[start..].find("*/").expect("a comment that ends") + start + 2;
        text.replace_range(start..end, " ");
    }
    text
}

/// Between the braces of a class's definition.
fn body<'a>(source: &'a str, class: &str, header: &Path) -> &'a str {
    let definition = source
        .match_indices(&format!("class {class}"))
        .find_map(|(at, found)| {
            let rest = &source[at + found.len()..];
            let next = rest.find(['{', ';'])?;
            let whole_name = !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            (whole_name && rest[next..].starts_with('{')).then(|| &rest[next + 1..])
        })
        .unwrap_or_else(|| panic!("{} does not define {class}", header.display()));
    &definition[..definition.find("\n};").expect("a class that ends")]
}

/// Its pure virtual functions but for the destructor, without `virtual` and `= 0`.
fn pure_functions(body: &str) -> Vec<String> {
    body.split(';')
        .filter_map(|statement| statement.trim_end().strip_suffix('0'))
        .filter_map(|statement| statement.trim_end().strip_suffix('='))
        .filter_map(|statement| statement.rfind("virtual ").map(|at| &statement[at + 8..]))
        .filter(|function| !function.contains('~'))
        .map(|function| function.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}
