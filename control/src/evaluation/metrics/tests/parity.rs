//! Equal to the reference implementations: `tests/fixtures/evaluation/generate.py` made the vectors.

use super::{Cases, close, read, vectors};
use crate::evaluation::metrics::bleu::{BleuCounts, ChrfCounts};
use crate::evaluation::metrics::classification::{Average, Confusion};
use crate::evaluation::metrics::likelihood::{Likelihood, LikelihoodSums};
use crate::evaluation::metrics::retrieval::Ranking;
use crate::evaluation::metrics::rouge::{RougeKind, rouge};
use crate::evaluation::metrics::text::{Normalisation, exact_match, token_f1};
use crate::evaluation::metrics::word;
use crate::evaluation::metrics::words::{BleuTokenizer, RougeWords};

#[test]
fn bleu_equals_sacrebleu() {
    let vectors = vectors();
    let cases: Cases = read(&vectors["cases"]);
    for tokenizer in [
        BleuTokenizer::V13a,
        BleuTokenizer::Zh,
        BleuTokenizer::Char,
        BleuTokenizer::None,
    ] {
        let expected = &vectors["bleu"][tokenizer.name()];
        let tokens: Vec<Vec<String>> = read(&expected["tokens"]);
        let sentence: Vec<f64> = read(&expected["sentence"]);
        let (mut corpus, mut one_reference) = (BleuCounts::default(), BleuCounts::default());
        for (index, (output, references)) in cases.iter().enumerate() {
            assert_eq!(
                tokenizer.tokens(output),
                tokens[index],
                "{} of {output:?}",
                tokenizer.name()
            );
            let counts = BleuCounts::of(output, references, tokenizer);
            close(
                counts.sentence(),
                sentence[index],
                &format!("{} of {output:?}", tokenizer.name()),
            );
            corpus.add(&counts, 1.0);
            one_reference.add(&BleuCounts::of(output, &references[..1], tokenizer), 1.0);
        }
        close(corpus.corpus(), read(&expected["corpus"]), tokenizer.name());
        close(
            one_reference.corpus(),
            read(&expected["corpus_one_reference"]),
            tokenizer.name(),
        );
        let mut short = BleuCounts::of("word", &["word".into()], tokenizer);
        short.add(&BleuCounts::of("a b", &["a c".into()], tokenizer), 1.0);
        close(
            short.corpus(),
            read(&expected["corpus_of_short"]),
            "corpus without 4-grams",
        );
    }
}

#[test]
fn chrf_equals_sacrebleu() {
    let vectors = vectors();
    let cases: Cases = read(&vectors["cases"]);
    let sentence: Vec<f64> = read(&vectors["chrf"]["sentence"]);
    let mut corpus = ChrfCounts::default();
    for ((output, references), expected) in cases.iter().zip(sentence) {
        let counts = ChrfCounts::of(output, references);
        close(counts.score(), expected, output);
        corpus.add(&counts, 1.0);
    }
    close(corpus.score(), read(&vectors["chrf"]["corpus"]), "corpus");
}

#[test]
fn rouge_equals_rouge_score() {
    let vectors = vectors();
    let cases: Cases = read(&vectors["cases"]);
    for kind in [
        RougeKind::One,
        RougeKind::Two,
        RougeKind::L,
        RougeKind::Lsum,
    ] {
        let expected: Vec<f64> = read(&vectors["rouge"][word(&kind)]);
        for ((output, references), expected) in cases.iter().zip(expected) {
            close(
                rouge(output, references, kind, RougeWords::Latin),
                expected,
                &format!("{kind:?} of {output:?}"),
            );
        }
    }
}

#[test]
fn rouge_sees_chinese_only_by_character() {
    let references = ["重启路由器".to_owned()];
    close(
        rouge("重启路由器", &references, RougeKind::L, RougeWords::Latin),
        0.0,
        "latin",
    );
    close(
        rouge("重启路由器", &references, RougeKind::L, RougeWords::Cjk),
        1.0,
        "cjk",
    );
    close(
        rouge("重启 router", &references, RougeKind::One, RougeWords::Cjk),
        2.0 * 2.0 / 8.0,
        "mixed",
    );
}

#[test]
fn squad_equals_its_official_script() {
    let vectors = vectors();
    let squad = &vectors["squad"];
    let mut cases: Cases = read(&vectors["cases"]);
    cases.extend(read::<Cases>(&squad["extra"]));
    let normalized: Vec<String> = read(&squad["normalized"]);
    let (f1, exact): (Vec<f64>, Vec<f64>) = (read(&squad["f1"]), read(&squad["exact"]));
    for (index, (output, references)) in cases.iter().enumerate() {
        assert_eq!(Normalisation::Squad.apply(output), normalized[index]);
        close(token_f1(output, references, false), f1[index], output);
        close(
            exact_match(output, references, Normalisation::Squad),
            exact[index],
            output,
        );
    }
}

#[test]
fn normalisations_differ_as_declared() {
    let reference = ["The  answer\n is 4.".to_owned()];
    let matches = |output, normalisation| exact_match(output, &reference, normalisation) == 1.0;
    assert!(!matches("The answer is 4.", Normalisation::None));
    assert!(matches(" The answer is 4. ", Normalisation::Whitespace));
    assert!(!matches("answer is 4", Normalisation::Whitespace));
    assert!(matches("answer is 4", Normalisation::Squad));
    close(
        token_f1("退款需要三天", &["退款要三天".into()], true),
        2.0 * 5.0 / 11.0,
        "characters",
    );
}

#[test]
fn classification_equals_scikit_learn() {
    for case in vectors()["classification"].as_array().unwrap() {
        let (actual, predicted): (Vec<String>, Vec<String>) =
            (read(&case["actual"]), read(&case["predicted"]));
        let pairs: Vec<_> = actual
            .iter()
            .map(String::as_str)
            .zip(predicted.iter().map(String::as_str))
            .collect();
        let confusion = Confusion::of(&pairs);
        assert_eq!(confusion.labels, read::<Vec<String>>(&case["labels"]));
        assert_eq!(confusion.counts, read::<Vec<f64>>(&case["confusion"]));
        close(confusion.accuracy(), read(&case["accuracy"]), "accuracy");
        for average in [Average::Macro, Average::Micro, Average::Weighted] {
            let name = word(&average);
            close(confusion.f1(average), read(&case[&name]), &name);
        }
        for (index, label) in confusion.labels.iter().enumerate() {
            let scores = confusion.of_label(label).unwrap();
            close(
                scores.precision,
                read(&case["precision"][index]),
                "precision",
            );
            close(scores.recall, read(&case["recall"][index]), "recall");
            close(scores.f1, read(&case["f1"][index]), "f1");
            close(scores.support, read(&case["support"][index]), "support");
        }
    }
}

#[test]
fn retrieval_equals_trec_eval_and_the_mean_over_tied_orders() {
    let vectors = vectors();
    for kind in ["untied", "tied"] {
        for case in vectors["retrieval"][kind].as_array().unwrap() {
            let ranking =
                Ranking::new(&read(&case["retrieved"]), &read(&case["relevant"])).unwrap();
            let k = read(&case["k"]);
            let expected: [f64; 4] = read(&case["expected"]);
            let found = [
                ranking.ndcg(k),
                ranking.recall(k),
                ranking.reciprocal_rank(),
                ranking.average_precision(),
            ];
            for ((found, expected), name) in found
                .into_iter()
                .zip(expected)
                .zip(["ndcg", "recall", "rr", "ap"])
            {
                close(found, expected, &format!("{kind} {name}@{k} of {case}"));
            }
        }
    }
}

#[test]
fn likelihood_equals_numpy() {
    let case = &vectors()["likelihood"];
    let (tokens, bytes): (Vec<Vec<f64>>, Vec<u64>) = (read(&case["tokens"]), read(&case["bytes"]));
    let mut sums = LikelihoodSums::default();
    for (tokens, bytes) in tokens.iter().zip(bytes) {
        sums.add(&LikelihoodSums::of(tokens, bytes).unwrap(), 1.0);
    }
    close(
        sums.value(Likelihood::PerToken),
        read(&case["perplexity"]),
        "perplexity",
    );
    close(
        sums.value(Likelihood::PerByte),
        read(&case["byte_perplexity"]),
        "byte perplexity",
    );
    close(
        sums.value(Likelihood::BitsPerByte),
        read(&case["bits_per_byte"]),
        "bits per byte",
    );
    assert!(
        LikelihoodSums::of(&[-1.0, 0.7], 9)
            .unwrap_err()
            .contains("0.7")
    );
    assert!(LikelihoodSums::of(&[], 9).is_err());
}
