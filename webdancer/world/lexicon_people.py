"""Sentence shapes about people. The slots are explained in lexicon_types."""

from webdancer.world.lexicon_types import Combined, Relation, functional

RELATIONS: tuple[Relation, ...] = (
    functional(
        "born_in",
        "person",
        "city",
        ("Born in", "Place of birth"),
        (
            "{s} was born in {o}.",
            "{s_poss} birthplace is {o}.",
            "It was in {o} that {s_mid} was born.",
            "{s} is a native of {o}.",
            "{s}, who comes from {o}, was born there.",
            "~Of the cities of the land it is {o}, and no other, that may call itself the place of {s_poss_mid} birth.",
        ),
    ),
    functional(
        "birth_date",
        "person",
        "date",
        ("Born", "Date of birth"),
        (
            "{s} was born on {o}.",
            "{s_poss} date of birth is {o}.",
            "On {o}, {s_mid} was born.",
            "The birth of {s_mid} is recorded for {o}.",
            "{s}, born on {o}, was the youngest of the family.",
            "~The day on which the world first had {s_mid} in it was {o}.",
        ),
    ),
    functional(
        "death_date",
        "person",
        "date",
        ("Died", "Date of death"),
        (
            "{s} died on {o}.",
            "{s_poss} death came on {o}.",
            "On {o}, {s_mid} died after a short illness.",
            "{s} lived until {o}.",
            "{s}, who died on {o}, was mourned by many.",
            "~It was not before {o} that death found {s_mid}.",
        ),
    ),
    functional(
        "studied_at",
        "person",
        "university",
        ("Education", "Alma mater"),
        (
            "{s} studied at {o}.",
            "{s} is a graduate of {o}.",
            "{s} took a degree from {o}.",
            "At {o}, {s_mid} completed the studies that shaped the later work.",
            "{s_poss} alma mater is {o}.",
            "~The lectures that {s_mid} sat through as a student were those of {o}.",
        ),
    ),
    functional(
        "advisor",
        "person",
        "person",
        ("Doctoral advisor", "Advisor"),
        (
            "{s} wrote a thesis under the supervision of {o}.",
            "{s_poss} doctoral advisor was {o}.",
            "{o_start} supervised {s_poss_mid} doctoral thesis.",
            "{s} was a doctoral student of {o}.",
            "{s}, whose thesis was supervised by {o}, kept to that school.",
            "~That the thesis came to an end at all is owed to {o}, who advised {s_mid} in it.",
        ),
    ),
    functional(
        "spouse",
        "person",
        "person",
        ("Spouse", "Married to"),
        (
            "{s} is married to {o}.",
            "{s_poss} spouse is {o}.",
            "{s} shares a home with {o}, to whom {s_mid} is married.",
            "The marriage of {s_mid} and {o} took place in a small circle.",
            "{o_start} is the spouse of {s_mid}.",
            "~Not alone but wedded to {o} does {s_mid} go through life.",
        ),
    ),
    functional(
        "employer",
        "person",
        "company|university",
        ("Employer", "Works for"),
        (
            "{s} works for {o}.",
            "{s_poss} employer is {o}.",
            "{s} is employed by {o}.",
            "{s} holds a post at {o}.",
            "{s}, who works at {o}, lives nearby.",
            "~The wages that {s_mid} takes home are paid by {o}.",
        ),
    ),
    functional(
        "occupation",
        "person",
        "text",
        ("Occupation", "Profession"),
        (
            "{s} is {o_a}.",
            "{s} works as {o_a}.",
            "{s} is known as {o_a}.",
            "{s_poss} profession is that of {o_a}.",
            "By profession, {s_mid} is {o_a}.",
            "~What {s_mid} does for a living is what {o_a} does.",
        ),
    ),
)

COMBINED: tuple[Combined, ...] = (
    Combined(("born_in", "birth_date"), "Born in {born_in} on {birth_date}, {s_mid} grew up in modest circumstances."),
    Combined(("birth_date", "born_in"), "{s} was born on {birth_date} in {born_in}."),
    Combined(("birth_date", "born_in", "occupation"), "{s} (born {birth_date} in {born_in}) is {occupation_a}."),
    Combined(("birth_date", "occupation"), "{s} (born {birth_date}) is {occupation_a}."),
    Combined(("birth_date", "death_date", "occupation"), "{s} ({birth_date} – {death_date}) was {occupation_a}."),
    Combined(("occupation", "born_in"), "{s} is {occupation_a} from {born_in}."),
    Combined(("studied_at", "advisor"), "{s} studied at {studied_at}, where {advisor} supervised the doctoral thesis."),
    Combined(("studied_at", "employer"), "A graduate of {studied_at}, {s_mid} now works for {employer}."),
    Combined(("studied_at", "employer"), "After studies at {studied_at}, {s_mid} took a post at {employer}."),
    Combined(("employer", "spouse"), "{s} works for {employer} and is married to {spouse}."),
)
"""Where the subject has a death date, `is` is printed as `was` in occupation and in combined shapes."""
