"""Error rates of transcripts, on the host."""

from collections.abc import Sequence

import jiwer


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Returns `cer` and `wer`: all edits (substitutions, deletions, insertions) over all reference characters, words.

    Characters count as they stand, spaces included. A rate without any reference character or word is left out.
    """
    rates = {}
    if sum(map(len, references)):
        characters = jiwer.Compose([jiwer.ReduceToListOfListOfChars()])
        output = jiwer.process_characters(list(references), list(hypotheses), characters, characters)
        rates['cer'] = float(output.cer)
    if any(reference.split() for reference in references):
        rates['wer'] = float(jiwer.process_words(list(references), list(hypotheses)).wer)
    return rates
