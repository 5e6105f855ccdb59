"""One extractor over pages given as JSON lines on stdin, in its own environment: texts and CPU seconds on stdout."""

from __future__ import annotations

import json
import sys
import time


def main() -> int:
    name, rounds = sys.argv[1], int(sys.argv[2])
    pages = [json.loads(line) for line in sys.stdin]
    if name == "trafilatura":
        import trafilatura

        def extract(html: str) -> str:
            return trafilatura.extract(html, include_tables=True, include_comments=True) or ""

    elif name == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text

        def extract(html: str) -> str:
            return extract_plain_text(html, main_content=True, alt_texts=False)

    else:
        from phikit.corpus.html_text import html_text as extract
    texts = [extract(p) for p in pages]  # also warms what is loaded on first use
    seconds = []
    for _ in range(rounds):
        begin = time.process_time()
        for p in pages:
            extract(p)
        seconds.append(time.process_time() - begin)
    print(json.dumps({"texts": texts, "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
