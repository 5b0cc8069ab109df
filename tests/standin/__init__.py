"""A stand-in for a language model that works on real pages: the HTML documentation of Python (Debian's `python3-doc`).

It answers the filled prompts of every role from the prompt's text alone, as a weak but honest model would: it reads
signatures, version notes, lists, tables and sentences that name another module, asks about them in a few fixed shapes
of question, and answers questions of these shapes by search and visit. Nothing is kept between calls, no file of the
site is read, and no role tells another anything but through the prompts. Its slips (malformed JSON, broken turns, wrong
answers, miscounts) come at small rates that follow from the prompt and the call's seed.

    python -m tests.standin --port 0        prints {"port": …} and serves http://127.0.0.1:PORT/v1

What it cannot show of real models:

- knowledge: it knows nothing of Python beyond the page in front of it, so `easy_closed_book` falls on lucky guesses only,
  while a real model has read this documentation and would know much of it;
- understanding: its questions are about what stands right beside some words, and its prose has few turns, so nothing is
  learnt of how clear the prompts are to a reader, of how natural questions come out, or of how a critic judges thoughts;
- other sites: it finds facts by the shapes of this documentation. On another site it writes hardly a question, and of the
  cases that `webdancer doctor` puts to each role it solves those of the summariser, the judge and the critic alone;
- the wire of real providers: token counts are a quarter of the characters, the context never fills, `temperature` and
  `top_p` change nothing, safety refusals, tool calls of the API's own and cached prompt tokens do not occur;
- time: its own work takes milliseconds; latency and failures are those that the server is told to make.
"""
