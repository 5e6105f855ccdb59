"""Forum threads and comments: each post's author line is found before anything is cut from the page."""

from __future__ import annotations

from phikit.corpus.html_tree import Element

_POST = {"post", "comment", "message", "answer", "reply", "postbody", "bbp", "cooked", "posting"}
_POST_TYPES = ("Comment", "Answer", "Question", "DiscussionForumPosting", "SocialMediaPosting")
_AUTHOR = {"author", "username", "poster", "postername", "postauthor", "commenter", "hnuser", "nickname"}
_HOLDERS = ("div", "article", "li", "section", "tr", "td", "table")
LONGEST_NAME = 60


def mark_posts(root: Element) -> int:
    """Turns the posts of a thread into elements `post` with the attribute `author` ("name, date"), their author and
    date elements removed; returns how many. A page with fewer than two named authors' posts is no thread."""
    candidates = [e for e in root.elements() if _is_post(e)]
    outer = set(map(id, candidates))
    found = []
    for e in candidates:
        author = next((x for x in _own(e, outer) if _is_author(x)), None)
        if author is None or author is e:
            continue
        time = next((x for x in _own(e, outer) if x.tag == "time" or "datetime" in x.attrs), None)
        found.append((e, author, time))
    claimed: set[int] = set()
    posts = []
    for e, author, time in found:
        if id(author) not in claimed:  # wrappers of one post share its author
            claimed.add(id(author))
            posts.append((e, author, time))
    if len(posts) < 2:
        return 0
    for e, author, time in posts:
        date = (time.line() or time.attrs.get("datetime", "")) if time else ""
        e.attrs = {"author": f"{author.line()}, {date}" if date else author.line()}
        e.classes, e._tokens, e.tag = frozenset(), None, "post"
        for gone in (author, time):
            if gone is not None and gone.parent is not None and gone in gone.parent.children:
                gone.parent.children.remove(gone)
    root.count()
    return len(posts)


def _is_post(e: Element) -> bool:
    if e.tag not in _HOLDERS or e.chars < 10:
        return False
    kind = e.attrs.get("itemtype", "")
    return bool(e.tokens & _POST) or kind.endswith(_POST_TYPES)


def _is_author(e: Element) -> bool:
    named = e.tokens & _AUTHOR or {"user", "name"} <= e.tokens
    named = named or e.attrs.get("itemprop") == "author" or e.attrs.get("rel") == "author"
    return bool(named) and 0 < len(e.line()) <= LONGEST_NAME


def _own(e: Element, posts: set[int]):
    """Elements of this post, not of posts inside it... unless it has no text of its own."""
    todo = [c for c in reversed(e.children) if isinstance(c, Element)]
    while todo:
        x = todo.pop()
        yield x
        if id(x) not in posts or x.chars > 0.9 * e.chars:
            todo.extend(c for c in reversed(x.children) if isinstance(c, Element))
