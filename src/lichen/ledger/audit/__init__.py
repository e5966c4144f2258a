"""Believe nothing: derive a whole ledger again from its entries and compare.

For every entry, in order: bytes against the stored leaf hash, form, the author's key at that index, signature, the contract's
rules. For every seal: succession, roots of log and state, the log's signature on seal and checkpoint. Then that no payload stands
twice; and all that is stored beside the entries: hash tiles, payload digests, the state down to each key and back to the last
16 seals, the rows of views, the definitions of tables, SQLite's pages and indexes.

===================  =====================================================================
`checked`            what an entry shows by itself; what it changes if its work is new
`view_rows`          the rows of views that it calls for
`examined`, `pool`   both, for a stretch of entries, on all processors
`replay`             the pass in order: authors, rules, seals
`state_roots`        the state at every seal, from the writes alone
`stored`, `pages`    what lies beside the entries
`sound_state`        the pieces of the stored state, meanwhile
`row_difference`     what is wrong with a row of a view, in words
`scratch`            what is derived on the way, and how far an audit came
===================  =====================================================================

What is derived shares nothing with the audited file and lies on disk, so memory stays bounded and a state that was tampered with
cannot vouch for itself. What the audit shows is that the ledger is what its entries make of it; that its authors told the
truth it cannot show.

Source: RFC 9162 section 8.3 (monitors) for what an auditor recomputes. Differs: state, contracts and views are replayed too.
"""

from __future__ import annotations

from lichen.ledger.audit.door import audit
from lichen.ledger.audit.report import AuditReport, Problem

__all__ = ["AuditReport", "Problem", "audit"]
