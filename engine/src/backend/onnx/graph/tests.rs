#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::backend::onnx::testing::fixture;
use crate::folder::{ModelFolder, ModelKind};

fn read(name: &str) -> (Vec<u8>, Box<GenAiConfig>) {
    let folder = ModelFolder::open(&fixture(name)).unwrap();
    let ModelKind::Generative(config) = folder.kind else {
        panic!("not generative");
    };
    (std::fs::read(&config.model).unwrap(), config)
}

#[test]
fn the_edit_replaces_the_mask_by_lengths_and_picks_rows_before_the_head() {
    for (name, after_head) in [
        ("tiny-llama", vec!["MatMul"]),
        ("tiny-gemma2", vec!["MatMul", "Div", "Tanh", "Mul"]),
    ] {
        let (bytes, config) = read(name);
        for ragged in [false, true] {
            let (edited, layout) = edit(&bytes, &fixture(name), &config, ragged).unwrap();
            let model = Model::read(&edited).unwrap();
            let inputs: Vec<_> = model.inputs.iter().map(|input| input.name).collect();
            assert!(!inputs.contains(&MASK));
            assert_eq!(inputs.contains(&added::QUERY_SEQLENS), ragged);
            assert_eq!(layout.ragged, ragged);
            for node in model.nodes.iter().filter(|node| node.op == GQA) {
                assert_eq!(
                    (node.input(5), node.input(6)),
                    (added::SEQLENS_K, added::TOTAL)
                );
                assert_eq!(
                    node.input(16),
                    if ragged { added::QUERY_SEQLENS } else { "" }
                );
                assert_eq!(node.attribute("sliding_window_cache"), None, "{name}");
            }
            let gather = model
                .nodes
                .iter()
                .position(|n| n.input(1) == added::LOGITS_INDICES)
                .unwrap();
            let rest = model.nodes[gather + 1..].iter().map(|node| node.op);
            let rest: Vec<_> = rest.filter(|op| *op != "Constant").collect();
            assert_eq!(rest, after_head, "{name}");
            let logits = model
                .outputs
                .iter()
                .find(|output| output.name == "logits")
                .unwrap();
            assert_eq!(logits.shape, [Dim::Free("num_logits"), Dim::Fixed(128)]);
        }
    }
}

#[test]
fn the_window_stays_where_it_was() {
    let windows = |name| {
        let (bytes, config) = read(name);
        let (edited, _) = edit(&bytes, &fixture(name), &config, false).unwrap();
        let model = Model::read(&edited).unwrap();
        let gqa = model.nodes.iter().filter(|node| node.op == GQA);
        gqa.map(|node| node.attribute("local_window_size"))
            .collect::<Vec<_>>()
    };
    assert_eq!(windows("tiny-gemma2"), [Some(16), Some(-1)]);
    assert_eq!(windows("tiny-llama"), [Some(-1), Some(-1)]);
}

#[test]
fn foreign_graphs_are_refused_by_what_is_foreign() {
    type Change = fn(&mut Model<'_>);
    let cases: [(&str, Change); 7] = [
        ("attention by `MultiHeadAttention`", |m| {
            gqa(m).op = "MultiHeadAttention"
        }),
        ("has no GroupQueryAttention", |m| {
            m.nodes.retain(|node| node.op != GQA)
        }),
        ("2, the graph has 1 GroupQueryAttention", |m| {
            gqa(m).op = "Other"
        }),
        ("wants position_ids", |m| {
            m.inputs
                .push(ValueInfo::new("position_ids", element::INT64, Vec::new()));
        }),
        ("an attention bias", |m| {
            let node = gqa(m);
            node.inputs.resize(11, "");
            node.inputs[10] = "bias";
        }),
        ("uses the attention mask for more", |m| {
            let last = m.nodes.len() - 1;
            m.nodes[last].changed().inputs.push(MASK);
        }),
        ("head cannot be found", |m| {
            let last = m.nodes.len() - 1;
            m.nodes[last].changed().op = "Softmax";
        }),
    ];
    let (bytes, config) = read("tiny-llama");
    for (expected, change) in cases {
        let mut model = Model::read(&bytes).unwrap();
        change(&mut model);
        let error = edit(&model.write(), &fixture("tiny-llama"), &config, false).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

fn gqa<'m, 'a>(model: &'m mut Model<'a>) -> &'m mut Node<'a> {
    model
        .nodes
        .iter_mut()
        .find(|node| node.op == GQA)
        .unwrap()
        .changed()
}

#[test]
fn weights_outside_the_folder_are_refused() {
    let (bytes, config) = read("tiny-llama");
    let name = b"model.onnx.data";
    for location in [b"../del.onnx.dat", b"/etc/host.onnx."] {
        let mut bytes = bytes.clone();
        while let Some(at) = bytes.windows(name.len()).position(|window| window == name) {
            bytes[at..at + name.len()].copy_from_slice(location);
        }
        let error = edit(&bytes, &fixture("tiny-llama"), &config, false).unwrap_err();
        assert!(
            error.to_string().contains("not inside the model folder"),
            "{error}"
        );
    }
}
