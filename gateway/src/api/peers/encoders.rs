//! Embeddings, rerank, classify, tokenize and detokenize.

use super::Neutral::{Empty, False, Null, Number, True, Words};
use super::{Refused, refused};

const MEDIA: &str = "the models of this server read text only";
const PREFIX: &str = "write into the text what your model wants before it";
const ADAPTERS: &str = "there are no adapters; deploy the merged model under a name of its own";

/// Of all that run encoders.
const POOLING: &[Refused] = &[
    // vLLM.
    refused("padding", Words(&["do_not_pad"]), "inputs are not padded"),
    refused("truncation_side", Words(&["right"]), "the end is cut"),
    refused("request_id", Null, "use the header 'X-Request-Id'"),
    refused("priority", Number(0.0), "the API key has a priority"),
    refused("mm_processor_kwargs", Empty, MEDIA),
    refused("media_io_kwargs", Empty, MEDIA),
    refused("add_special_tokens", True, "send token ids to have none"),
    refused("messages", Null, "an encoder reads texts"),
    refused("chat_template", Null, "an encoder reads texts"),
    refused("chat_template_kwargs", Empty, "an encoder reads texts"),
    refused("add_generation_prompt", False, "an encoder reads texts"),
    refused("continue_final_message", False, "an encoder reads texts"),
    // text-embeddings-inference.
    refused(
        "truncation_direction",
        Words(&["right", "Right"]),
        "the end is cut",
    ),
    refused("prompt_name", Null, PREFIX),
    // SGLang.
    refused("rid", Null, "use the header 'X-Request-Id'"),
    refused("lora_path", Null, ADAPTERS),
];

/// `POST /v1/embeddings`.
pub(crate) const EMBEDDINGS: &[&[Refused]] = &[
    POOLING,
    &[
        refused("embed_dtype", Words(&["float32"]), "numbers are float32"),
        refused(
            "endianness",
            Words(&["native", "little"]),
            "base64 is little-endian",
        ),
        refused(
            "embed_override_token_id",
            Null,
            "embeddings are the model's own",
        ),
        refused("embed_overrides", Null, "embeddings are the model's own"),
        // text-embeddings-inference.
        refused("inputs", Null, "use 'input'"),
        // Cohere, Jina, Voyage, Mistral, NVIDIA.
        refused("input_type", Null, PREFIX),
        refused("task", Null, PREFIX),
        refused("prompt", Null, PREFIX),
        refused("instruction", Null, PREFIX),
        refused("late_chunking", False, "each input is embedded by itself"),
        refused("embedding_type", Words(&["float"]), "use 'encoding_format'"),
        refused("embedding_types", Null, "use 'encoding_format'"),
        refused("output_dimension", Null, "use 'dimensions'"),
        refused("output_dtype", Words(&["float"]), "numbers are float32"),
        refused("normalized", Null, "use 'normalize'"),
        refused("truncation", Null, "use 'truncate'"),
        refused("texts", Null, "use 'input'"),
        refused("images", Empty, MEDIA),
    ],
];

/// `POST /v1/rerank`, `/v2/rerank` and `/rerank`.
pub(crate) const RERANK: &[&[Refused]] = &[
    POOLING,
    &[
        // vLLM.
        refused(
            "use_activation",
            True,
            "scores are the model's, between 0 and 1",
        ),
        refused(
            "max_tokens_per_query",
            Null,
            "what is too long is cut at the model's limit",
        ),
        refused("instruction", Null, PREFIX),
        refused("instruct", Null, PREFIX),
        // Cohere.
        refused("rank_fields", Null, "of an object its 'text' is read"),
        refused(
            "max_chunks_per_doc",
            Number(1.0),
            "a document is scored in one piece",
        ),
        refused("relevant_spans", Null, "a document is scored as a whole"),
        // Jina and Voyage.
        refused("return_embeddings", False, "use /v1/embeddings"),
        refused(
            "max_doc_length",
            Null,
            "what is too long is cut at the model's limit",
        ),
        refused(
            "max_query_length",
            Null,
            "what is too long is cut at the model's limit",
        ),
        refused("overlap_tokens", Null, "a document is scored in one piece"),
        refused("top_k", Null, "use 'top_n'"),
        refused("truncation", Null, "use 'truncate'"),
        // text-embeddings-inference.
        refused("texts", Null, "use 'documents'"),
        refused(
            "raw_scores",
            False,
            "scores are the model's, between 0 and 1",
        ),
        refused("return_text", False, "use 'return_documents'"),
    ],
];

/// `POST /v1/classify`.
pub(crate) const CLASSIFY: &[&[Refused]] = &[
    POOLING,
    &[
        refused(
            "use_activation",
            True,
            "the probabilities of a model add up to 1",
        ),
        // text-embeddings-inference.
        refused("inputs", Null, "use 'input'"),
        refused(
            "raw_scores",
            False,
            "the probabilities of a model add up to 1",
        ),
    ],
];

/// `POST /tokenize`.
pub(crate) const TOKENIZE: &[&[Refused]] = &[&[
    refused("chat_template", Null, "the model's own is used"),
    refused("mm_processor_kwargs", Empty, MEDIA),
    refused("media_io_kwargs", Empty, MEDIA),
    refused("content", Null, "use 'prompt'"),
    refused("add_special", Null, "use 'add_special_tokens'"),
    refused("parse_special", True, "special tokens are always read"),
    refused("with_pieces", False, "use 'return_token_strs'"),
]];
