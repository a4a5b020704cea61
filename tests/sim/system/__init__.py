"""The whole system by a seed: issuer, five gateways, ten devices, thirty holders, thirty days.

Real, as in production:

* the journals: `wallet.journal` and `wallet.protocol` over SQLCipher stores, one for each box;
* the boxes' side of synchronisation: `sync.engine`, `edge.journal_port`, `edge.intake`, with sealed
  and signed envelopes;
* the issuer: `cloud.syncing`, `cloud.reconciler`, `cloud.ledger`, `cloud.issuer` (certificates,
  policy, lists, enrolments, grants) and `cloud.recovery`, over one PostgreSQL for each worker and a
  fresh database for each seed, on a Unix socket;
* every signature, certificate, receipt, note and proof.

Simulated, by the seed:

* time: clocks stand until the world moves them; no thread and no wall time decides anything, and a
  seed gives the same roots again, byte for byte;
* the line (`line`): it loses, doubles, delays, reorders, answers with an old answer, and is cut for
  days; HTTP and TLS, terminals' routes and the daemon's tasks are left out;
* the branches' network (`lan`), over which gateways tell each other lists;
* tokens: their keys are the seed's, their counter is a number; disks: a process ends at any named
  point of `wallet.faults`, and what was written stays (torn writes, lost syncs and failing tokens
  have `tests.sim.test_journal`);
* people (`people`) and cheats (`cheats`).

What is checked afterwards is in `checks`. That the checks can fail was tried with bugs put in by
hand, in a copy: an issuer that lets a note be redeemed twice; rules that do not hold an order
against the wallet's next sequence; an issuer to whom a fork means nothing. Each is found by seed 1,
which `make test` runs. Gateways that look at no limit of exposure are found by `test_fraud`.

A payee of a payment that its gateway hid is paid by a claim, and nothing stays in transit or in
suspense: the checks ask for both. A device that cheats and never returns is convicted of nothing:
what its payees have is borne, within the bounds of the policy, once its claims window is over.
"""
