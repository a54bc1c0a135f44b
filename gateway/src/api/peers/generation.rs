//! Chat and completions.

use super::Neutral::{Empty, False, Null, Number, True, Words};
use super::{Refused, refused};

const SAMPLER: &str = "this sampler knows temperature, top_k, top_p, min_p and penalties";
const MEDIA: &str = "the models of this server read text only";
const BEAMS: &str = "there is no beam search; ask for several choices by 'n'";
const REASONING: &str = "reasoning is not told apart from content; what a chat template takes goes \
                         into 'chat_template_kwargs'";
const ADAPTERS: &str = "there are no adapters; deploy the merged model under a name of its own";
const ELSEWHERE: &str = "generation is not divided between servers";
const DETAILS: &str = "the answer has no such part";
const DECODING: &str = "there is no speculative decoding to steer";
const LENGTH: &str = "use 'max_tokens'";

/// Of both.
const GENERATION: &[Refused] = &[
    // vLLM.
    refused("use_beam_search", False, BEAMS),
    refused("length_penalty", Number(1.0), BEAMS),
    refused("early_stopping", False, BEAMS),
    refused("watermarking", False, "there is no watermarking"),
    refused(
        "truncate_prompt_tokens",
        Null,
        "send a prompt that fits the context",
    ),
    refused("truncation_side", Null, "prompts are never cut"),
    refused(
        "prompt_logprobs",
        Null,
        "use 'echo' and 'logprobs' of /v1/completions",
    ),
    refused(
        "logprob_token_ids",
        Null,
        "use 'logprobs', or 'allowed_token_ids'",
    ),
    refused(
        "logits_processors",
        Empty,
        "code is not taken from requests",
    ),
    refused(
        "guided_whitespace_pattern",
        Null,
        "white space follows the schema's format",
    ),
    refused("mm_processor_kwargs", Empty, MEDIA),
    refused("media_io_kwargs", Empty, MEDIA),
    refused("mm_payload", Null, MEDIA),
    refused("priority", Number(0.0), "use 'service_tier'"),
    refused("request_id", Null, "use the header 'X-Request-Id'"),
    refused(
        "return_tokens_as_token_ids",
        False,
        "use 'return_token_ids' of /v1/completions",
    ),
    refused(
        "return_weight_versions",
        False,
        "the header 'X-Sluice-Revision' names the weights",
    ),
    refused("return_token_offsets", False, DETAILS),
    refused("return_prompt_text", False, "use /tokenize and /detokenize"),
    refused("routed_experts_prompt_start", Number(0.0), DETAILS),
    refused("kv_transfer_params", Empty, ELSEWHERE),
    refused("ec_transfer_params", Empty, ELSEWHERE),
    refused(
        "vllm_xargs",
        Empty,
        "there are no extensions that would read it",
    ),
    refused(
        "repetition_detection",
        Null,
        "use 'repetition_penalty' or 'max_tokens'",
    ),
    refused(
        "stream_interval",
        Number(1.0),
        "chunks are sent as tokens come",
    ),
    refused("thinking_token_budget", Number(-1.0), REASONING),
    // SGLang.
    refused("regex", Null, "use 'guided_regex'"),
    refused("ebnf", Null, "use 'guided_grammar', in Lark"),
    refused("json_schema", Null, "use 'response_format'"),
    refused("stop_regex", Empty, "use 'stop' or 'guided_regex'"),
    refused("no_stop_trim", False, "use 'include_stop_str_in_output'"),
    refused("lora_path", Null, ADAPTERS),
    refused(
        "session_params",
        Null,
        "there are no sessions; equal beginnings are reused anyway",
    ),
    refused(
        "input_ids",
        Null,
        "use 'prompt' of /v1/completions with token ids",
    ),
    refused(
        "custom_logit_processor",
        Null,
        "code is not taken from requests",
    ),
    refused(
        "custom_params",
        Empty,
        "there is no processor that would read it",
    ),
    refused("return_hidden_states", False, DETAILS),
    refused("return_routed_experts", False, DETAILS),
    refused("routed_experts_start_len", Number(0.0), DETAILS),
    refused(
        "return_cached_tokens_details",
        False,
        "'usage' has the cached tokens",
    ),
    refused("return_spec_tokens_details", False, DECODING),
    refused("return_sampling_mask", False, DETAILS),
    refused("return_meta_info", False, DETAILS),
    refused("max_dynamic_patch", Null, MEDIA),
    refused("min_dynamic_patch", Null, MEDIA),
    refused("images_config", Null, MEDIA),
    refused("rid", Null, "use the header 'X-Request-Id'"),
    refused("extra_key", Null, "use 'cache_salt'"),
    refused("custom_labels", Null, "use 'metadata'"),
    refused("bootstrap_host", Null, ELSEWHERE),
    refused("bootstrap_port", Null, ELSEWHERE),
    refused("bootstrap_room", Null, ELSEWHERE),
    refused("routed_dp_rank", Null, ELSEWHERE),
    refused("disagg_prefill_dp_rank", Null, ELSEWHERE),
    refused("data_parallel_rank", Null, ELSEWHERE),
    // llama.cpp.
    refused("mirostat", Number(0.0), SAMPLER),
    refused("mirostat_tau", Number(5.0), SAMPLER),
    refused("mirostat_eta", Number(0.1), SAMPLER),
    refused("typical_p", Number(1.0), SAMPLER),
    refused("tfs_z", Number(1.0), SAMPLER),
    refused("top_a", Number(0.0), SAMPLER),
    refused("top_n_sigma", Number(-1.0), SAMPLER),
    refused("dynatemp_range", Number(0.0), SAMPLER),
    refused("dynatemp_exponent", Number(1.0), SAMPLER),
    refused("dry_multiplier", Number(0.0), SAMPLER),
    refused("dry_base", Number(1.75), SAMPLER),
    refused("dry_allowed_length", Number(2.0), SAMPLER),
    refused("dry_penalty_last_n", Number(-1.0), SAMPLER),
    refused("dry_sequence_breakers", Null, SAMPLER),
    refused("xtc_probability", Number(0.0), SAMPLER),
    refused("xtc_threshold", Number(0.1), SAMPLER),
    refused("adaptive_target", Number(-1.0), SAMPLER),
    refused("adaptive_decay", Number(0.9), SAMPLER),
    refused("min_keep", Number(0.0), SAMPLER),
    refused("samplers", Null, "the order is fixed: top_k, top_p, min_p"),
    refused("repeat_penalty", Number(1.0), "use 'repetition_penalty'"),
    refused(
        "repeat_last_n",
        Number(64.0),
        "penalties look at the whole text",
    ),
    refused("penalize_nl", Null, "penalties look at all tokens"),
    refused("grammar", Empty, "use 'guided_grammar', in Lark"),
    refused("grammar_lazy", False, "use 'tools'"),
    refused("grammar_triggers", Empty, "use 'tools'"),
    refused("preserved_tokens", Empty, "use 'skip_special_tokens'"),
    refused("n_predict", Null, LENGTH),
    refused("n_cmpl", Number(1.0), "use 'n'"),
    refused("n_keep", Number(0.0), "a context is never shifted"),
    refused("n_discard", Number(0.0), "a context is never shifted"),
    refused("n_indent", Number(0.0), "use 'guided_regex'"),
    refused("n_probs", Number(0.0), "use 'logprobs'"),
    refused(
        "post_sampling_probs",
        False,
        "'logprobs' are those of the model",
    ),
    refused(
        "t_max_predict_ms",
        Null,
        "use the header 'X-Request-Timeout-Ms'",
    ),
    refused(
        "return_tokens",
        False,
        "use 'return_token_ids' of /v1/completions",
    ),
    refused("return_progress", False, DETAILS),
    refused("timings_per_token", False, "use the metrics"),
    refused("response_fields", Empty, "the whole answer is sent"),
    refused("lora", Empty, ADAPTERS),
    refused("image_data", Empty, MEDIA),
    refused("multimodal_data", Empty, MEDIA),
    refused("input_prefix", Empty, "there is no infilling"),
    refused("input_suffix", Empty, "there is no infilling"),
    refused("input_extra", Empty, "there is no infilling"),
    // text-generation-inference, and what `transformers` calls the same.
    refused("adapter_id", Null, ADAPTERS),
    refused(
        "do_sample",
        Null,
        "use 'temperature'; 0 takes the likeliest token",
    ),
    refused("num_beams", Number(1.0), BEAMS),
    refused("no_repeat_ngram_size", Number(0.0), SAMPLER),
    refused("max_new_tokens", Null, LENGTH),
    refused("min_new_tokens", Number(0.0), "use 'min_tokens'"),
    refused("details", False, "use 'logprobs'"),
    refused(
        "decoder_input_details",
        False,
        "use 'echo' and 'logprobs' of /v1/completions",
    ),
    refused("return_full_text", False, "use 'echo'"),
    refused("top_n_tokens", Null, "use 'logprobs' or 'top_logprobs'"),
    refused("truncate", Null, "send a prompt that fits the context"),
    refused("watermark", False, "there is no watermarking"),
];

/// `POST /v1/chat/completions`.
pub(crate) const CHAT: &[&[Refused]] = &[
    GENERATION,
    &[
        // OpenAI.
        refused("audio", Null, "the models of this server write text only"),
        refused("web_search_options", Null, "nothing is searched for"),
        refused(
            "moderation",
            Null,
            "nothing is moderated; put a gateway with that task before",
        ),
        refused(
            "verbosity",
            Words(&["medium"]),
            "say in a message how long the answer should be",
        ),
        // vLLM.
        refused("chat_template", Null, "the model's own is used"),
        refused("best_of", Number(1.0), "use 'n'; all choices are returned"),
        refused("include_reasoning", True, REASONING),
        refused("return_token_ids", False, "/v1/completions has it"),
        // SGLang.
        refused("return_prompt_token_ids", False, "use /tokenize"),
        refused("return_input_ids_in_sglext", False, "use /tokenize"),
        refused(
            "return_output_ids_in_sglext",
            False,
            "use 'return_token_ids' of /v1/completions",
        ),
        refused(
            "sampling_logprobs_mode",
            Null,
            "'logprobs' are those of the model",
        ),
        refused("return_flat_raw_output_top_logprobs", False, DETAILS),
        refused("thinking", Null, REASONING),
        refused("task", Null, "there is one task: to answer"),
        refused("use_audio_in_video", False, MEDIA),
        refused("video_config", Null, MEDIA),
        // llama.cpp.
        refused("reasoning_format", Words(&["none"]), REASONING),
        refused("reasoning_budget", Number(-1.0), REASONING),
        refused("reasoning_budget_tokens", Number(-1.0), REASONING),
        refused("thinking_budget_tokens", Number(-1.0), REASONING),
        refused("thinking_forced_open", False, REASONING),
        refused(
            "chat_format",
            Null,
            "it is found in the model's chat template",
        ),
        refused(
            "parse_tool_calls",
            True,
            "calls are told apart wherever 'tools' are offered",
        ),
        // Others.
        refused("enable_thinking", Null, REASONING),
        refused("reasoning", Null, "use 'reasoning_effort'"),
        refused("tool_prompt", Null, "the model's chat template says it"),
        refused("guideline", Null, "write it into a message"),
    ],
];

/// `POST /v1/completions`.
pub(crate) const COMPLETIONS: &[&[Refused]] = &[
    GENERATION,
    &[
        refused("prompt_embeds", Null, "send text or token ids"),
        refused("messages", Null, "use /v1/chat/completions"),
    ],
];

/// A message of a chat.
pub(crate) const MESSAGE: &[&[Refused]] = &[&[
    refused("audio", Null, MEDIA),
    refused("function_call", Null, "it is deprecated; use 'tool_calls'"),
]];

/// `stream_options`.
pub(crate) const STREAM_OPTIONS: &[&[Refused]] = &[&[refused(
    "include_obfuscation",
    False,
    "chunks are as long as their text",
)]];

/// `structured_outputs`.
pub(crate) const STRUCTURED_OUTPUTS: &[&[Refused]] = &[&[
    refused(
        "disable_any_whitespace",
        False,
        "white space follows the schema's format",
    ),
    refused(
        "whitespace_pattern",
        Null,
        "white space follows the schema's format",
    ),
    refused("structural_tag", Null, "use 'tools' or 'grammar'"),
]];
