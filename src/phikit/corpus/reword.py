"""An evaluation item said in other words, by rule: what n-grams cannot find and a reader would.

Words and phrases are replaced by others of the same meaning, small numbers are written out, and the last sentence,
which in a question is what is asked, comes first. The facts stay. Rules, not a model: the same words on every machine.
"""

from __future__ import annotations

import re

# One pair a word; what is not here stays as it is.
_PAIRS = """
about=around; add=sum up; adds=sums up; all=every one of the; also=as well; always=every time; among=amid;
answer=reply; are=happen to be; ask=inquire; at first=initially; bag=sack; bags=sacks; beautiful=lovely;
because=since; before=prior to; begin=start; begins=starts; below=underneath; best=finest; big=large;
bought=purchased; boy=young man; boys=young men; build=construct; built=constructed; but=yet; buy=purchase;
buys=purchases; calculate=work out; can=is able to; car=vehicle; cars=vehicles; cause=reason; causes=leads to;
change=alter; changes=alters; chose=picked; choose=pick; child=youngster; children=youngsters; city=town;
close=near; cost=are priced at; costs=is priced at; country=nation; decide=resolve; decided=resolved; decrease=drop;
describe=portray; describes=portrays; determine=establish; died=passed away; different=distinct; difficult=hard;
during=in the course of; each=every; earn=make; earned=made; earns=makes; eat=consume; eats=consumes;
ended=finished; enough=sufficient; event=occurrence; every=each; explain=account for; explains=accounts for;
family=household; fast=quick; father=dad; few=not many; find=work out; finds=comes upon; first=initial;
for each=per; for example=say; found=came upon; friend=pal; friends=pals; from=out of; gave=handed; get=receive;
gets=receives; girl=young woman; give=hand; gives=hands; goes=travels; got=received; great=vast; group=bunch;
grow=get larger; had=owned; half=one half; happened=took place; happens=takes place; has=owns; have=own;
help=assist; helps=assists; high=tall; home=house; house=home; how many=what number of; how much=what amount of;
however=still; if=supposing; important=essential; in order to=so as to; in total=altogether; increase=rise;
increases=goes up; is called=goes by the name of; job=task; keep=hold on to; kind=sort; kinds=sorts;
known as=called; large=big; largest=biggest; last=final; least=smallest; left=remaining; likely=probable;
little=small; live=dwell; lives=dwells; long=lengthy; look=glance; made=produced; main=chief; make=produce;
makes=produces; man=fellow; many=numerous; mean=signify; means=signifies; money=cash; more than=over;
most=the majority of; mother=mum; move=shift; moves=shifts; must=has to; named=called; near=close to; need=require;
needs=requires; new=fresh; next=following; number=count; obtain=get; often=frequently; old=aged;
on average=typically; one day=on a certain day; only=just; order=sequence; other=further; paid=spent; part=portion;
parts=portions; pay=hand over; pays=hands over; people=persons; per=for every; person=individual; picked=gathered;
place=spot; plan=scheme; price=cost; primary=main; problem=difficulty; produce=make; produced=made; put=placed;
rate=speed; reach=get to; reason=ground; receive=get; received=got; remain=are left; remaining=left over;
result=outcome; same=identical; say=state; says=states; sell=trade; sells=trades; show=reveal; shows=reveals;
similar=alike; since=because; small=little; sold=traded; some=a few; spend=use up; spends=uses up; spent=used up;
start=begin; started=began; starts=begins; stay=remain; store=shop; students=pupils; study=investigation;
such as=like; sum=total; take=grab; takes=grabs; teacher=instructor; the following=these; then=after that;
there are=one finds; there is=one finds; therefore=thus; think=reckon; times=fold; told=informed; total=overall;
town=city; trip=journey; twice=two times; type=sort; types=sorts; under=beneath; use=employ; used=employed;
uses=employs; usually=as a rule; value=worth; very=really; walk=go on foot; walks=goes on foot; want=wish;
wants=wishes; was=used to be; way=manner; went=travelled; were=used to be; when=at the time that; which=what;
while=as; why=for what reason; will=is going to; with=along with; without=lacking; woman=lady; work=labour;
works=labours; wrong=incorrect;
"""
_OTHER = {a.strip(): b.strip() for a, b in (p.split("=") for p in _PAIRS.split(";") if p.strip())}
_WORD = re.compile(
    r"(?<![\w'])(?:" + "|".join(sorted(map(re.escape, _OTHER), key=len, reverse=True)) + r")(?![\w'])",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.,$/^{-])\d{1,2}(?![\w,/^}]|\.\d)")
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905


def reworded(text: str) -> str:
    """The text in other words; one without a word of the table keeps its words."""
    sentences = _SENTENCE.split(text.strip())
    if len(sentences) > 1:
        sentences = [sentences[-1], *sentences[:-1]]
    return _NUMBER.sub(_spelled, _WORD.sub(_other, " ".join(sentences)))


def _other(m: re.Match[str]) -> str:
    new = _OTHER[m[0].lower()]
    return new[0].upper() + new[1:] if m[0][0].isupper() else new


def _spelled(m: re.Match[str]) -> str:
    n = int(m[0])
    if n < 20:
        return _SMALL[n]
    tens = _TENS[n // 10 - 2]
    return tens if n % 10 == 0 else f"{tens}-{_SMALL[n % 10]}"
