"""Fuzzing of softndk: octets that no sane peer sends, and what must hold whatever comes.

targets/  one file each for start-up, framing, inbound, Terminate, captures, an adapter: feed one input, check all
octets    MPA, DDP and RDMAP once more, written from the RFCs and independent of `softndk.wire`
judge     what a receiver owes to a stream of octets: memory, completions, the Terminate, octet for octet
lab, peer the surroundings of a core under test, and who sends it almost-right messages
world, stepped, era      a whole adapter with a good connection, stepped by hand; how many inputs it sees
hostile, program         the two sides of a connection of it: raw octets, and what a program may do
accounts, documented     what a program has asked for, and how it may fail
records   how an input is laid out, and how it is changed so that it stays almost right
driver, worker, corpus, planted   running it: with atheris or without, keeping inputs, bugs planted on purpose

Run: ``make fuzz``, or ``python -m fuzz`` from the project's root.
"""
