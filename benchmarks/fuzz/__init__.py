"""What a stranger may send: mutated frames on the wire, mutated requests on the HTTP server.

    python -m benchmarks.fuzz wire --frames 1000000
    python -m benchmarks.fuzz http --requests 100000

Real messages and requests are changed by a seeded generator, one place or several at a time. What
is answered with a sentence that was not heard before is kept and changed further: the sentences of
the house tell its branches apart, so they guide as coverage would, at no cost (Python 3.11 has no
cheap coverage, and hypothesis takes a hundred times as long for an example). A seed reproduces a
run. Ends with status 1 and the inputs at fault if anything but an honest refusal came of one.
"""
