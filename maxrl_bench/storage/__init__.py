"""What is kept, and whether to trust it.

The run store (`store`, with `blobs` and `formats`) keeps each run under the hash of its configuration, with checksums
and with the `fingerprint` of the code that made it; `tables` reads the joined tables of an experiment, with the names
of their `columns`; `provenance` says which code, packages and machine made a result. All writing goes through `files`:
atomic, inside its folder, never through a link; `locks` lets processes take turns.

Comes in: a finished run's rows, pass rates, parameters. Goes out: tidy data frames, or one line that says why not.
"""

__all__ = ["columns", "files", "formats", "locks", "provenance", "store", "tables"]
