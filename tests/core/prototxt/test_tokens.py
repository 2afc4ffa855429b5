from __future__ import annotations

import time

import pytest

from dtrain.core.prototxt.tokens import Kind, tokenize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_output: 20", [(Kind.WORD, "num_output"), (Kind.SYMBOL, ":"), (Kind.WORD, "20")]),
        ("-1.5e-3f - 2", [(Kind.WORD, "-1.5e-3f"), (Kind.WORD, "- 2")]),
        ("{<>}[,;]", [(Kind.SYMBOL, symbol) for symbol in "{<>}[,;]"]),
        ('"a\\"b" \'c"d\'', [(Kind.STRING, '"a\\"b"'), (Kind.STRING, "'c\"d'")]),
        ('"a # b" # "c"', [(Kind.STRING, '"a # b"')]),
        ('"mnist', [(Kind.BROKEN_STRING, '"mnist')]),
        ('"mnist }}', [(Kind.BROKEN_STRING, '"mnist'), (Kind.SYMBOL, "}"), (Kind.SYMBOL, "}")]),
        ('"a b, } c ;}', [(Kind.BROKEN_STRING, '"a b, } c'), (Kind.SYMBOL, ";"), (Kind.SYMBOL, "}")]),
        ("'", [(Kind.BROKEN_STRING, "'")]),
        ('"}', [(Kind.BROKEN_STRING, '"'), (Kind.SYMBOL, "}")]),
        ("# Größe 大小\n", []),
        ("", []),
    ],
)
def test_tokenize_cuts_text_into_words_strings_and_symbols(
    text: str, expected: list[tuple[Kind, str]]
) -> None:
    *tokens, end = tokenize(text)
    assert [(token.kind, token.text) for token in tokens] == expected
    assert end.kind is Kind.END


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_tokenize_counts_lines_from_1(line_end: str) -> None:
    text = line_end.join(["a # one", "", 'b "x"', "# four", "c"])
    assert [(token.text, token.line) for token in tokenize(text)[:-1]] == [
        ("a", 1),
        ("b", 3),
        ('"x"', 3),
        ("c", 5),
    ]
    assert tokenize(text)[-1].line == 5


@pytest.mark.parametrize("filling", [" ", "}", "' ", "a "])
def test_tokenize_of_a_long_line_after_an_open_quote_takes_no_longer_for_each_character(filling: str) -> None:
    start_s = time.process_time()
    tokenize('"' + filling * 100_000 + "x")
    assert time.process_time() - start_s < 2  # half a minute when each character looks at all behind it
