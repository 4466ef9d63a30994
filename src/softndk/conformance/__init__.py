"""Conformance to NDKPI: the rules in this project's words, and a pytest suite that proves a provider against them.

``pytest --pyargs softndk.conformance --ndk-provider=package.module:factory`` runs the suite and prints a support
matrix. The cases hold the public objects only, so they judge whatever offers those. Needs pytest (``pip install
softndk[conformance]``); the package itself and `rules` import without it.
"""
