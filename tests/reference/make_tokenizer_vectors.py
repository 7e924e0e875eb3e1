#!/usr/bin/env python3
"""Writes tests/data/tokenizer_vectors.txt: texts and their ids, from Hugging Face's `tokenizers`.

An independent reference for thimble's byte-level BPE: the vocabulary and the merges are read out of a
GGUF file, the tokenizer is Hugging Face's, put together as tokenizer.json would for each pre-tokenizer.
Needs: pip install tokenizers (0.20 or later). Run from the repository's root:

    tests/reference/make_tokenizer_vectors.py daemon/model/builtin/thimble-stories-q8_0.gguf \
        > tests/data/tokenizer_vectors.txt

With --random N it prints N random texts a pre-tokenizer on top, for comparing by hand.
Each line: pre-tokenizer, the text's bytes in hexadecimal, the ids; separated by tabs.
"""

import argparse
import random
import struct

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# As in the tokenizer.json of the models that use them.
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

TEXTS = [
    "", " ", "a", "Once upon a time", " Once upon a time, there was a little girl.", "\n", "\n\n\n",
    "Hello world", "hello  world   again    end", " leading", "trailing ", "tab\tand\ttabs\t\t", "a\r\nb\r\n\r\nc",
    "I'm you're he's we've they'll I'd don't", "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T", "'s's 's''s", "1234567890",
    "in 1999, 12 cats and 3456 dogs", "3.14159e-10 x 0xDEADBEEF", "½ ⅓ ² ٣ ४ Ⅷ", "naïve café façade Ñandú",
    "Жили-были дед да баба", "おはようございます。世界", "你好，世界！", "안녕하세요 세계", "שלום עולם", "مرحبا بالعالم",
    "😀😃 🎉🎊 👩‍👩‍👧‍👦 🇩🇪🇫🇷", "e\u0301 combining a\u0308", "\u00a0no\u00a0break\u2003em\u3000wide", "\u180e mongolian\u180evowel",
    "zero\u200bwidth\u200djoin\ufeffbom", "\u0085next\u2028line\u2029para", "for (int i = 0; i < 10; ++i) { x[i] *= 2; }",
    "def f(x):\n    return x ** 2  # square\n\n\tif y:\n\t\tpass", "<html><body class=\"a\">&amp;</body></html>",
    "https://example.com/path?q=1&r=a%20b#frag", "C:\\Users\\me\\file.txt", "a+b=c<d>e^f~g|h$i`j", "!!!???...,,,;;;:::",
    "--- *** ___ === ###", "\"quoted\" 'single' `back` «guillemets» “curly”", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "UPPER lower MiXeD", "x" * 33 + " " * 33 + "y", "\x00\x01\x02\x1f\x7f", "mixed ЖÄ漢字123abc!?\n \n  \n", "ſ'ſ K Å",
    "\U0001d54f\U0001f9d1\U000e0041\U0010ffff", "end with newline\n", "  \n  two", "\t \n \r \x0b \x0c x",
]


def read_metadata(path):
    with open(path, "rb") as file:
        def number(letter):
            return struct.unpack("<" + letter, file.read(struct.calcsize("<" + letter)))[0]

        def value(kind):
            if kind == 8:
                return file.read(number("Q")).decode("utf-8", "surrogateescape")
            if kind == 9:
                element, count = number("I"), number("Q")
                return [value(element) for _ in range(count)]
            return number(FORMATS[kind])

        assert file.read(4) == b"GGUF"
        number("I")
        number("Q")
        metadata = {}
        for _ in range(number("Q")):
            key = value(8)
            metadata[key] = value(number("I"))
        return metadata


def pre_tokenizer(name):
    """The pre-tokenizer of that name, pieces in the byte alphabet."""
    if name == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    expression = {"llama-bpe": LLAMA3, "qwen2": QWEN2}[name]
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_tokenizer(metadata, name):
    vocabulary = {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges,
                                     ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    return tokenizer


def random_text(rng):
    pools = ["abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJ", "0123456789", " ", "  \t\n\r", ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+`~",
             "éèüößñçøåæ", "абвгдежз", "漢字仮名交じり文", "😀🎉👩‍👧🇩🇪", "½²٣४Ⅷ", "\u00a0\u2003\u3000\u200b\u0301\u180e"]
    out = []
    for _ in range(rng.randint(1, 30)):
        pool = rng.choice(pools)
        if rng.random() < 0.05:
            out.append(rng.choice([" the", " and", "'s", "'ll", "'T", " don't", "ing", "\n\n", "    ", " = ", "12345"]))
        elif rng.random() < 0.03:
            code = rng.randint(0, 0x10FFFF)
            out.append("?" if 0xD800 <= code < 0xE000 else chr(code))
        else:
            out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 8))))
    return "".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf")
    parser.add_argument("--pre", nargs="*", default=["gpt-2", "smollm", "llama-bpe", "qwen2"])
    parser.add_argument("--random", type=int, default=0)
    arguments = parser.parse_args()
    metadata = read_metadata(arguments.gguf)
    rng = random.Random(1)
    texts = TEXTS + [random_text(rng) for _ in range(arguments.random)]
    for name in arguments.pre:
        tokenizer = make_tokenizer(metadata, name)
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            print(name, text.encode().hex(), " ".join(map(str, ids)), sep="\t")


if __name__ == "__main__":
    main()
