"""Definitions of a trade-off's columns, written into its record for readers without the code."""

from __future__ import annotations

_INSIDE_COSTS = (
    "null for methods that work inside the model: what they choose with is part of prefill_ms and flops_llm (between "
    "the language model's layers) or of encode_ms and flops_vision (merging in the tower)"
)
_DIFFERENCES = (
    "accuracy minus that of another method at the same ratio (random: the mean of its draws) or of all tokens, on the "
    "same questions, a method's seeds averaged first; by_seed: of each seed alone; "
    "blind_differences: all tokens minus answers without the picture; kind_differences: on one kind of question, minus "
    "all tokens; 95 % percentile bootstrap, 2,000 draws of whole "
    "pictures; no correction for their number"
)
_INTERVAL = {"accuracy_low, accuracy_high": "95 % percentile bootstrap, 2,000 draws of whole pictures"}

#: Where pictures are encoded and know the boxes of their items.
_ENCODED = {
    "accuracy": "share of the questions whose greedy answer is the right word and then the end",
    **_INTERVAL,
    "answer_kl": "KL(full || pruned) in nats, mean over the answer's tokens (the end token included) and questions",
    "probe_accuracy": "of the m (digit, colour) pairs in a picture, the share among the m that a small classifier rates"
    " highest; it reads each kept projected token and sums what it finds; trained anew for every row on training"
    " pictures",
    "prefill_ms": "of warm caches: the mean of three calls, one behind the other and behind one that is not timed",
    "prefill_batch4_ms": "prefill of four pictures at once, in all; every other time is of one picture",
    "feature_cosine": "cosine between the mean of the kept projected tokens and that of all, mean over pictures",
    "saliency_mass": "share kept of the unpruned model's attention from a question's tokens to the picture, mean over "
    "layers and heads, normalised a question, mean over a picture's questions",
    "item_share": "share of the kept tokens whose middle lies in an item's box, mean over pictures",
    "tokens_kept": "mean over pictures for a method that finds its own count (prumerge), whose cost columns are those"
    " of the whole budget; merged tokens count as the ones they were merged into, also in saliency_mass and item_share",
    "differences": _DIFFERENCES,
    "oracle-question": "each question keeps the items it is about; measured on the first pictures only, no probe",
}
#: Where answers are generated.
_GENERATED = {
    "accuracy": "vqa_accuracy where a question has four answers or more, else exact_match; of greedy answers",
    **_INTERVAL,
    "exact_match": "share of the answers that are one of the accepted ones, letter case and the last full stop aside",
    "vqa_accuracy": "over all ways to leave one of the people out, min(1, others who said the same / 3), the mean",
    "loglikelihood_accuracy": "share of the questions with choices whose right one has the highest log-likelihood",
    "tokens_kept": "mean over pictures of the visual tokens that the language model read",
    "first_token_ms, decode_ms_per_token": "of the first question, processor left out, `generate` as a whole; median",
    "differences": _DIFFERENCES,
}


def definitions(*, encoded: bool, inside: bool) -> dict[str, str]:
    """Return column -> definition. inside: whether a method works inside the vision tower or the language model"""
    if not encoded:
        return _GENERATED
    return {**_ENCODED, **({"select_ms, flops_scorer": _INSIDE_COSTS} if inside else {})}
