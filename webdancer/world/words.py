"""The material that names are made of. Words of other languages than English are invented."""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONSETS = _split("b bl br d dr f fl fr g gl gr h j k kl l m n p pr r s st t tr v z")
VOWELS = _split("a e i o u")
MIDDLES = _split("l r n m v d t k b nd lm rv st rg lt sk nt ld rm lv mb ng nk ls rt sp rk lb rn")

ENDINGS: dict[str, tuple[str, ...]] = {
    "person": _split(
        "ck nder lin sson vic tti rdan nsky zel mann ghe ddle nsen lloy wick czek ndez sén lör né ffer pp sk ttson"
    ),
    "city": _split(
        "burg vik mont ster ford grad ville havn stead mouth port ton bury wald gard stadt bridge field ham bø qué"
    ),
    "country": _split("nia land via ria stan dor mark lia donia vania"),
    "river": _split("n r l ne re le th ss"),
    "lake": _split("m mm me ch gh ng"),
    "university": _split("by cke dge lby nby rth"),
    "company": _split("x tec nex co dyne corp lux tron vo trix"),
    "museum": _split("que ssa tte lle nne ffe"),
    "bridge": _split("gan lan ran dan van"),
    "prize": _split("ndt rst lst hl rz"),
    "band": _split("zz ggy nko ppo zi tza"),
    "film": _split("ra na la da sha ya"),
    "novel": _split("ros nos los dos tos mos"),
    "album": _split("mi ni li ri vi"),
    "repository": _split("d t k p b g"),
}
"""Disjoint, each opening with a consonant: the ending of a word tells its type."""

_FEMALE = """Ada Agnes Alma Amelie Anja Anita Astrid Beata Berta Bianca Carla Celia Clara Cora Dagny Dora Edda Elena Elsa Emma
Erika Esther Flora Freda Gerda Greta Hanna Hedda Helga Ida Ilse Inga Irene Iris Jana Johanna Judith Karin Katja Klara
Lena Lilian Linda Livia Lotte Lucia Magda Maren Marta Mila Mira Nadia Nina Nora Olga Paula Petra Renate Rita Rosa
Sabine Selma Sigrid Silvia Sonja Stella Tamara Thea Ulla Vera Viola Wanda Zoe Zélie"""
_MALE = """Albin Aldo Anders Anton Arne Arthur August Axel Basil Boris Bruno Carl Cesar Conrad Dario David Edgar Egon Emil
Erik Ernst Felix Fabian Frank Georg Gustav Hans Hector Henrik Hugo Igor Ivan Jakob Jan Jonas Josef Julian Karl Kasper
Kurt Lars Leon Linus Lorenz Ludwig Magnus Marco Marius Martin Max Milan Nils Oskar Otto Pavel Peter Philip Ralf René
Robert Roman Rudolf Samuel Simon Stefan Sven Theo Thomas Tobias Ulrich Viktor Walter Wilhelm Xaver"""
NUM_FEMALE = len(_FEMALE.split())
GIVEN = _split(_FEMALE + " " + _MALE)

ADJECTIVES = _split(
    "Silent Golden Broken Distant Hidden Narrow Pale Restless Slow Velvet Winter Crooked Bitter Early Last Lost Bright Hollow"
)

NOUNS: dict[str, tuple[str, ...]] = {
    "film": _split(
        "Harbour Orchard Station Carnival Lighthouse Corridor Verdict Journey Passage Masquerade Frontier Reunion"
    ),
    "novel": _split(
        "Daughters Letters Inheritance Garden Ashes Winters Servants Almanac Testament Clockmaker Vineyard Pilgrims"
    ),
    "album": _split(
        "Echoes Signals Mirrors Shadows Tides Horizons Nocturnes Embers Lanterns Satellites Murmurs Avenues"
    ),
    "band": _split("Herons Foxes Engines Pilots Brothers Sparrows Wolves Mechanics Strangers Drifters"),
}

PATTERNS: dict[str, tuple[str, ...]] = {
    "city": ("{word}",),
    "country": ("{word}",),
    "river": ("River {word}",),
    "lake": ("Lake {word}",),
    "university": ("{word} University", "University of {word}", "{word} Institute"),
    "company": (
        "{word} Systems",
        "{word} Industries",
        "{word} Motors",
        "{word} Labs",
        "{word} Chemicals",
        "{word} Instruments",
    ),
    "publisher": ("{word} Press", "{word} Books", "{word} House"),
    "label": ("{word} Records", "{word} Music", "{word} Sound"),
    "museum": ("{word} Museum", "{word} Gallery", "{word} Museum of Art"),
    "bridge": ("{word} Bridge", "{word} Viaduct", "{word} Footbridge"),
    "prize": ("{word} Prize", "{word} Medal", "{word} Award"),
    "band": ("{word} {noun}", "{adjective} {word}"),
    "film": ("{noun} of {word}", "{adjective} {word}", "{adjective} {noun} of {word}", "{word} {noun}"),
    "novel": ("{noun} of {word}", "{word} {noun}", "{adjective} {noun} of {word}"),
    "album": ("{word} {noun}", "{noun} of {word}", "{adjective} {word} {noun}"),
}

REPOSITORY_NOUNS = _split(
    "router parser cache solver graph index stream tensor loader mesh codec queue shell schema probe tracer"
)

PAPER_ADJECTIVES = _split(
    """Adaptive Sparse Robust Hierarchical Stochastic Modular Recursive Bounded Implicit Elastic Causal Spectral Greedy Lazy
    Convex Discrete Layered Mixed Neural Optimal Parallel Quantised Regular Smooth Tensorial Uniform Variational Weighted
    Asynchronous Bayesian Compact Delayed Entropic Factorised Gated Harmonic"""
)
PAPER_METHODS = _split(
    """Kernels Routing Sampling Estimators Embeddings Transport Scheduling Inference Filters Hashing Lattices Operators
    Retrieval Segmentation Catalysis Simulation Decoding Pruning Alignment Clustering Forecasting Indexing Matching Planning
    Regression Search Tracking Unfolding Annealing Bootstrapping Compression Diffusion Expansion Folding Gradients
    Interpolation"""
)
PAPER_QUALITIES = _split(
    """Noisy Turbulent Sparse-Data Long-Range Heterogeneous Low-Rank Chiral Porous Drifting Incomplete Partial Coupled
    Multilingual Volatile Crowded Damped Evolving Fragmented Granular Hidden Irregular Jammed Layered-Soft Magnetic Nested
    Open-Ended
    Periodic Rarefied Seasonal Thin-Film Unlabelled Viscous Weakly-Bound Anisotropic Bursty Correlated"""
)
PAPER_OBJECTS = _split(
    """Graphs Membranes Polymers Corpora Markets Manifolds Sensors Proteins Networks Flows Images Crystals Languages Ledgers
    Queues Populations Reefs Signals Textures Vortices Archives Batteries Circuits Droplets Enzymes Forests Gels
    Habitats Interfaces
    Joints Kinases Lasers Mixtures Neurons Orbits Plasmas"""
)
