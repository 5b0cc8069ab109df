"""The sentences that the scribe understands.

The patterns are the scribe's own, written from reading pages of the embedded web. They leave about one sentence shape in
six unread, as a human reader in a hurry would: long-winded sentences that turn the fact around. Such a fact has to be found
on another page, in an infobox or in a list.

In a pattern, `S` is the subject, `P` the subject with a possessive ("Ana Velk's", "Its"), `[relation]` the value of a
relation, `[a|b]` that of the one relation which fits the subject's kind, `{year}` the year for which it is stated, `_` any
words, `IS` is "is" or "was", `WORKS` "works" or "worked", `AN` "a" or "an".
"""

from webdancer.scribe.relations import word_set

NO_OCCUPATIONS = word_set(
    "film novel album band museum bridge city country river lake university company paper prize project library"
)
"""Nouns that follow "is a" where no person is described."""

SENTENCES = """\
S was born in [born_in].
P birthplace is [born_in].
It was in [born_in] that S was born.
S IS a native of [born_in].
S, who comes from [born_in], was born there.
S was born on [birth_date].
P date of birth is [birth_date].
On [birth_date], S was born.
The birth of S is recorded for [birth_date].
S, born on [birth_date], was _.
S died on [death_date].
P death came on [death_date].
On [death_date], S died after _.
On [death_date], S died.
S lived until [death_date].
S, who died on [death_date], was _.
S studied at [studied_at].
S IS a graduate of [studied_at].
S took a degree from [studied_at].
At [studied_at], S completed the studies that _.
P alma mater IS [studied_at].
S wrote a thesis under the supervision of [advisor].
P doctoral advisor was [advisor].
[advisor] supervised P doctoral thesis.
S was a doctoral student of [advisor].
S, whose thesis was supervised by [advisor], _.
S IS married to [spouse].
P spouse IS [spouse].
S shares a home with [spouse], to whom _.
The marriage of S and [spouse] took place _.
[spouse] is the spouse of S.
[spouse] was the spouse of S.
S works for [employer].
S worked for [employer].
P employer IS [employer].
S IS employed by [employer].
S holds a post at [employer].
S held a post at [employer].
S, who works at [employer], lives nearby.
S, who worked at [employer], lived nearby.
S IS AN [occupation].
S WORKS as AN [occupation].
S IS known as AN [occupation].
P profession IS that of AN [occupation].
By profession, S IS AN [occupation].
Born in [born_in] on [birth_date], S grew up in _.
S was born on [birth_date] in [born_in].
S (born [birth_date] in [born_in]) IS AN [occupation].
S (born [birth_date]) IS AN [occupation].
S ([birth_date] – [death_date]) IS AN [occupation].
S IS AN [occupation] from [born_in].
S studied at [studied_at], where [advisor] supervised _.
A graduate of [studied_at], S now works for [employer].
A graduate of [studied_at], S _ worked for [employer].
After studies at [studied_at], S took a post at [employer].
S works for [employer] and is married to [spouse].
S worked for [employer] and was married to [spouse].
S is a city in [country].
S lies in [country].
S, a city of [country], is known for _.
S belongs to [country].
In [country] lies the city of S.
S stands on [on_river].
[on_river] flows through S.
S lies on the banks of [on_river].
On [on_river] stands the city of S.
S grew up around a ford of [on_river].
As of {year}, S had [population] inhabitants.
The population of S was [population] in {year}.
S had a population of [population] in {year}.
In {year}, [population] people lived in S.
P population stood at [population] in {year}.
S was founded in [founded].
The city of S dates from [founded].
In [founded], the city of S was founded.
The foundation of S fell in [founded].
S received its town charter when it was founded in [founded].
P partner city is [partner_city].
S is twinned with [partner_city].
S keeps a partnership with the city of [partner_city].
A partnership links S with [partner_city].
As its twin city, S chose [partner_city].
Since {year}, [mayor] has been mayor of S.
The mayor of S has been [mayor] since {year}.
P mayor since {year} is [mayor].
S has been led by mayor [mayor] since {year}.
[mayor] has been the mayor of S since {year}.
The capital of S is [capital].
P capital is [capital].
[capital] is the capital of S.
S is governed from its capital, [capital].
S has [capital] as its capital.
The currency of S is the [currency].
P currency is the [currency].
People in S pay with the [currency].
S uses the [currency] as its currency.
The [currency] is the currency of S.
The official language of S is [language].
P official language is [language].
[language] is the official language of S.
S has [language] as its official language.
In S, the official language is [language].
S is [river_length] km long.
P length is [river_length] km.
S has a length of [river_length] km.
Over [river_length] km, S winds through _.
From source to mouth, S measures [river_length] km.
S flows into [flows_into].
S empties into [flows_into].
S ends in [flows_into].
The mouth of S is at [flows_into].
[flows_into] receives the waters of S.
S has an area of [lake_area] km².
S covers [lake_area] km².
The surface of S measures [lake_area] km².
P area is [lake_area] km².
With an area of [lake_area] km², S is _.
S is [lake_depth] m deep.
The depth of S reaches [lake_depth] m.
P greatest depth is [lake_depth] m.
S has a depth of [lake_depth] m.
At its deepest point, S measures [lake_depth] m.
S is a lake in [country].
In [country] lies the lake called S.
S, a lake of [country], freezes _.
S is a university in [located_in].
S has its seat in [located_in].
S is located in [located_in].
The campus of S lies in [located_in].
In [located_in] stands the campus of S.
S was established in [founded].
S has existed since [founded|formed_year].
In [founded], S opened its doors.
The foundation of S dates from [founded].
S was founded by [founder].
The founder of S was [founder].
The founder of S is [founder].
[founder] founded S.
S owes its foundation to [founder].
P founder was [founder].
S is a museum in [located_in].
S stands in [located_in].
In [located_in], S draws visitors _.
S, a museum in the centre of [located_in], _.
S opened in [opened].
S was opened to the public in [opened].
S has been open since [opened].
In [opened], S received its first visitors.
The opening of S took place in [opened].
S was designed by [architect].
The architect of S was [architect].
[architect] designed S.
S is a work of [architect].
The plans for S were drawn by [architect].
S crosses [crosses].
S spans [crosses].
S is a bridge over [crosses].
S carries a road across [crosses].
[crosses] is crossed by S.
The designer of S was [architect].
The plans for S came from [architect].
S is [bridge_length] m long.
S has a length of [bridge_length] m.
P length is [bridge_length] m.
From end to end, S measures [bridge_length] m.
With its [bridge_length] m, S is _.
S was opened to traffic in [opened].
In [opened], S was completed and opened.
S has been in use since [opened].
S is a bridge in [located_in].
In [located_in], S joins the two halves of the city.
S, a bridge in [located_in], is lit at night.
S is a city in [country] on [on_river].
Founded in [founded], S is a city in [country].
S is a country whose capital is [capital] and whose official language is [language].
Governed from [capital], S uses the [currency] as its currency.
S is a river that runs for [river_length] km and flows into [flows_into].
S is a lake in [country] with an area of [lake_area] km².
S covers [lake_area] km² and is [lake_depth] m deep.
S is a university in [located_in] that was founded in [founded].
Founded in [founded] by [founder], S teaches _.
S is a museum in [located_in] that opened in [opened].
Designed by [architect], S opened in [opened].
S is a bridge in [located_in] that crosses [crosses].
S was directed by [director].
The director of S is [director].
[director] directed S.
S is a film by [director].
[director], who directed S, also _.
S was released in [released].
S came to the cinemas in [released].
S is a film of [released].
In [released], S was first shown.
The release of S followed in [released].
S is based on the novel [based_on].
S is an adaptation of the novel [based_on].
The novel [based_on] was adapted into S.
S follows the plot of the novel [based_on].
The story of S was taken from the novel [based_on].
S was filmed in [filmed_in].
S was shot in [filmed_in].
The streets of [filmed_in] served as the set of S.
In [filmed_in], S was filmed within _.
Filming of S took place in [filmed_in].
S runs for [runtime] minutes.
The running time of S is [runtime] minutes.
S is [runtime] minutes long.
S lasts [runtime] minutes.
With [runtime] minutes, S is _.
S was written by [author].
The author of S is [author].
[author] wrote S.
S is a novel by [author].
S came from the pen of [author].
S was published in [published].
S appeared in [published].
S first came out in [published].
In [published], S reached the bookshops.
The first edition of S is dated [published].
S is set in [set_in].
The story of S takes place in [set_in].
S is a story of [set_in] and its people.
The plot of S unfolds in [set_in].
In [set_in], the heroes of S lose and find each other.
S was published by [publisher].
The publisher of S is [publisher].
[publisher] published S.
S was brought out by [publisher].
S appeared in the programme of the publisher [publisher].
S is an album by [performer].
S was recorded by [performer].
[performer] recorded S.
The band behind S is [performer].
S is a work of the band [performer].
S came out in [released].
S appeared in the shops in [released].
In [released], S was released.
S was recorded in [recorded_in].
The recordings for S were made in [recorded_in].
S was made in a studio in [recorded_in].
In [recorded_in], S was recorded within _.
The sessions for S took place in [recorded_in].
S was released by [label].
S was issued on the label [label].
The label of S is [label].
[label] released S.
S was brought out by the label [label].
S was produced by [producer].
The producer of S is [producer].
[producer] produced S.
S has [producer] as its producer.
For S, [producer] sat at the mixing desk as producer.
S was formed in [formed_in].
S is a band from [formed_in].
S comes from [formed_in].
In [formed_in], S played its first concerts _.
The band S has its origin in [formed_in].
S was formed in [formed_year].
The band S was founded in [formed_year].
In [formed_year], S came together.
The formation of S dates from [formed_year].
S is a [released] film directed by [director].
Directed by [director], S was filmed in [filmed_in].
S is based on the novel [based_on] and runs for [runtime] minutes.
S is a [published] novel by [author].
S is a novel by [author] that is set in [set_in].
Published by [publisher] in [published], S was _.
S is a [released] album by [performer].
S was recorded in [recorded_in] with [producer] as producer.
Released by [label] in [released], S sold well.
S is a band that was formed in [formed_in] in [formed_year].
S has its headquarters in [headquarters].
S is based in [headquarters].
The head office of S is in [headquarters].
S is run from [headquarters].
From its headquarters in [headquarters], S serves _.
S has been in business since [founded].
S started business in [founded].
In [founded], S was founded.
S was started by [founder].
S was set up by its founder, [founder].
Since {year}, [ceo] has been chief executive of S.
The chief executive of S has been [ceo] since {year}.
S has been led by [ceo] since {year}.
[ceo] has headed S since {year}.
P chief executive since {year} is [ceo].
As of {year}, S had [employees] employees.
S employed [employees] people in {year}.
In {year}, S had a staff of [employees].
S had [employees] employees in {year}.
The staff of S numbered [employees] in {year}.
S was acquired by [acquired_by] in {year}.
In {year}, [acquired_by] acquired S.
S was bought by [acquired_by] in {year}.
S has belonged to [acquired_by] since {year}.
[acquired_by] took over S in {year}.
S is named after [named_after].
S bears the name of [named_after].
S honours the memory of [named_after].
S was named in honour of [named_after].
The namesake of S is [named_after].
S is awarded by [awarded_by].
S is presented by [awarded_by].
[awarded_by] awards S.
S is given each time by [awarded_by].
The body that awards S is [awarded_by].
S was first awarded in [first_awarded].
S has been awarded since [first_awarded].
In [first_awarded], S was awarded for the first time.
The first award of S took place in [first_awarded].
S was created and first given in [first_awarded].
S was submitted on [submitted].
The submission date of S is [submitted].
On [submitted], S was submitted.
S reached the archive on [submitted].
The authors submitted S on [submitted].
S is a paper on [field].
S belongs to the field of [field].
The field of S is [field].
S is filed under [field].
S is a contribution to [field].
The code of S is available in the repository [code].
S comes with the repository [code].
The repository [code] holds the code of S.
Code for S can be found in [code].
The authors released their code as [code].
This work was funded by [funded_by].
We thank [funded_by] for funding this work.
Funding for this study came from [funded_by].
The study was paid for by [funded_by].
[funded_by] funded this work.
Our experiments use [num_samples] samples.
The study is based on [num_samples] samples.
We collected [num_samples] samples.
In total, [num_samples] samples were examined.
The data set of this study holds [num_samples] samples.
S is maintained by [maintainer].
The maintainer of S is [maintainer].
[maintainer] maintains S.
S is looked after by [maintainer].
Questions about S go to its maintainer, [maintainer].
S is written in [programming_language].
The programming language of S is [programming_language].
S is a library for [programming_language].
S is implemented in [programming_language].
S is a project in pure [programming_language].
S is released under the [licence] licence.
S is distributed under the [licence] licence.
The licence of S is [licence].
S is available under the [licence] licence.
The [licence] licence covers S.
S was first released on [first_release].
The first release of S is dated [first_release].
On [first_release], the first version of S was released.
S has been public since its first release on [first_release].
The initial release of S came on [first_release].
S implements the paper [implements].
S is the reference implementation of [implements].
The method of [implements] is implemented in S.
S holds the code of the paper [implements].
S turns the paper [implements] into code.
As of {year}, S had [stars] stars.
S had [stars] stars in {year}.
In {year}, S counted [stars] stars.
S had been given [stars] stars by {year}.
The number of stars of S was [stars] in {year}.
S is a company based in [headquarters] that was founded in [founded].
Founded in [founded] by [founder], S grew _.
S is awarded by [awarded_by] and was first awarded in [first_awarded].
Named after [named_after], S is awarded by [awarded_by].
S is written in [programming_language] and released under the [licence] licence.
Maintained by [maintainer], S was first released on [first_release].
Submitted on [submitted], S is a paper on [field].
The doctoral advisor of S was [advisor].
The occupation of S is [occupation].
The partner city of S is [partner_city].
S was acquired by [acquired_by].
S was funded by [funded_by].
S uses [num_samples] samples.
"""
