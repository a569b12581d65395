"""Definitions of a trade-off's columns."""

from salience.lab.report.kit.full_table import Column

_MIB, _G = 2.0**20, 1e9
#: Name, short name, digits, unit, meaning.
_DEFINED = (
    ("method", "method", 2, 1.0, "How tokens were chosen."),
    ("keep", "keep", 2, 1.0,
     "Share of a picture\u2019s visual tokens that go on to the projector and the language model."),
    ("tokens_kept", "tokens", 0, 1.0, "The same as a count: max(1, floor(keep \u00d7 n + 0.5))."),
    ("seed", "seed", 0, 1.0, "The fitted scorer or the random draw; deterministic methods have one row."),
    ("accuracy", "accuracy", 3, 1.0, "Share of questions answered exactly, 0 to 1."),
    ("accuracy_low", "low", 3, 1.0, "Lower end of its 95% interval, by bootstrap over pictures (not questions)."),
    ("accuracy_high", "high", 3, 1.0, "Upper end of the same interval."),
    ("answer_kl", "answer KL, nats", 3, 1.0, "KL(full || pruned) of the distribution over the answer\u2019s tokens."),
    ("probe_accuracy", "probe", 3, 1.0,
     "Accuracy of a small classifier that reads each kept token after the projector and names the (digit, "
     "colour) pairs in the picture. It is retrained per method and ratio on training pictures. Information "
     "loss is its value with all tokens minus its value here."),
    ("feature_cosine", "cosine", 3, 1.0, "Cosine of the kept tokens\u2019 mean feature with that of all tokens."),
    ("saliency_mass", "attention kept", 3, 1.0,
     "Share of the unpruned model\u2019s text-to-image attention that falls on kept tokens; one reference for all "
     "methods."),
    ("item_share", "on items", 3, 1.0,
     "Share of the kept tokens that lie on an item of the picture. No method but an oracle is told the items."),
    ("encode_ms", "encode, ms", 2, 1.0, "The vision tower, one picture; median."),
    ("select_ms", "select, ms", 3, 1.0, "Scoring and choosing the tokens; median."),
    ("project_ms", "project, ms", 3, 1.0, "The projector on the kept tokens; median."),
    ("prefill_ms", "prefill, ms", 2, 1.0,
     "The language model alone, over prompt and kept tokens; median, with warm caches."),
    ("prefill_batch4_ms", "prefill of 4, ms", 2, 1.0,
     "Prefill of four pictures in one batch, in all: they share the fixed cost of a call."),
    ("first_token_ms", "first token, ms", 2, 1.0, "encode + select + project + prefill."),
    ("decode_ms_per_token", "decode, ms/token", 2, 1.0, "Each further token; median."),
    ("flops_total", "GFLOP", 2, _G,
     "Arithmetic to the first token: vision tower, scorer, projector and language model. A multiply-add is 2, "
     "attention the full square, every layer that runs, the head for the last token."),
    ("flops_vision", "tower, GFLOP", 2, _G, "The vision tower\u2019s part of it."),
    ("flops_scorer", "scorer, GFLOP", 3, _G, "The scorer\u2019s part of it."),
    ("flops_projector", "projector, GFLOP", 3, _G, "The projector\u2019s part of it."),
    ("flops_llm", "LLM GFLOP", 2, _G, "The language model\u2019s part of it."),
    ("kv_bytes", "cache, MiB", 2, _MIB, "Keys and values of one sequence after prefill."),
    ("peak_bytes", "peak, MiB", 1, _MIB, "Most bytes of live tensors up to the first token, weights included."),
    ("n_pictures", "pictures", 0, 1.0, "Test pictures that the row was measured on."),
    ("exact_match", "exact match", 3, 1.0,
     "Share of answers that are an accepted one, letter case and the last full stop aside."),
    ("vqa_accuracy", "VQA accuracy", 3, 1.0, "VQA accuracy, of questions with four answers or more."),
    ("loglikelihood_accuracy", "log-likelihood", 3, 1.0,
     "Share of questions with choices whose right choice is the likeliest."),
)  # fmt: skip
COLUMNS = tuple(
    Column(name=name, short=short, digits=digits, unit=unit, meaning=meaning)
    for name, short, digits, unit, meaning in _DEFINED
)
