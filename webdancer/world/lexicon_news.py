"""Sentence shapes of the news: how an article states what changed. The slots are explained in lexicon_types."""

NEWS: dict[str, tuple[str, ...]] = {
    "population": (
        "A new count puts the population of {s_mid} at {o}.",
        "{s} now has {o} inhabitants, the city's office said.",
        "With {o} inhabitants, {s_mid} is changing fast.",
        "According to the latest figures, {o} people live in {s_mid}.",
        "The population of {s_mid} has reached {o}.",
    ),
    "mayor": (
        "{o_start} has been elected mayor of {s_mid}.",
        "{s} has a new mayor: {o}.",
        "Voters in {s_mid} chose {o} as mayor.",
        "The new mayor of {s_mid} is {o}.",
        "{o_start} took office as mayor of {s_mid}.",
    ),
    "ceo": (
        "{o_start} has been named chief executive of {s_mid}.",
        "{s} has a new chief executive: {o}.",
        "The board of {s_mid} chose {o} as chief executive.",
        "The new chief executive of {s_mid} is {o}.",
        "{o_start} took over as chief executive of {s_mid}.",
    ),
    "employees": (
        "{s} now has {o} employees, the company said.",
        "The staff of {s_mid} now numbers {o}.",
        "With {o} employees, {s_mid} is hiring again.",
        "According to its yearly report, {s_mid} employs {o} people.",
        "{o_start} people now work for {s_mid}.",
    ),
    "stars": (
        "{s} has reached {o} stars.",
        "The repository {s_mid} now counts {o} stars.",
        "With {o} stars, {s_mid} is widely used.",
        "According to the code host, {s_mid} has {o} stars.",
        "Users have given {s_mid} {o} stars so far.",
    ),
    "laureates": (
        "{s} of this year goes to {o}.",
        "{o_start} has won {s_mid}.",
        "{s} has been awarded to {o}.",
        "The jury of {s_mid} chose {o}.",
        "{o_start} is this year's laureate of {s_mid}.",
    ),
    "acquired_by": (
        "{o_start} has acquired {s_mid}.",
        "{s} has been acquired by {o}.",
        "{o_start} is taking over {s_mid}, both companies said.",
        "{s} now belongs to {o}.",
        "{o_start} has bought {s_mid} for an undisclosed sum.",
    ),
}
"""How the news states a fact; the year is that of the article's date."""
