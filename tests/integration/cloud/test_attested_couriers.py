"""Reports of a gateway with a TPM that a courier brings: late ones are no evidence of anything."""

from __future__ import annotations

import msgspec

from tests.integration.cloud.test_attested_reports import NEWEST, WISH, Site, chip, site
from tests.integration.cloud.test_gateways import kinds
from tests.support.swtpm import extend_pcr

__all__ = ["chip", "site"]


async def test_reports_of_a_courier_that_others_overtook_convict_nobody(site: Site) -> None:
    gateway, made = site.gateway, []
    for _ in range(3):
        up = gateway.up(newest=NEWEST)
        health = {"enrol": [WISH], **await gateway.answering(up)}
        made.append(await gateway.sealed(site.cloud, msgspec.structs.replace(up, health=health)))
        await gateway.token.counter.increment()

    async def carried(report: bytes) -> list[str]:
        now_ms = site.cloud.clock.now_ms()
        answered = await site.exchange.answer_carried(report, now_ms=now_ms)
        return kinds(gateway.taken(site.cloud, answered.sealed))

    # The last one comes first. The others show older counters, and a question that was answered.
    assert await carried(made[2]) == ["Question", "Enrolment"]
    asked = gateway.question
    for report in made[:2]:
        assert await carried(report) == ["Question"]
        assert gateway.question == asked
    await site.report()
    await site.report()
    # From before the books know: the gateway is asked anew, for they may be of a backup.
    before = gateway.question
    assert await carried(made[0]) == ["Question"]
    assert gateway.question != before
    assert kinds(await site.report()) == ["Question", "Enrolment"]
    assert await site.evidence() == []


async def test_a_courier_is_no_way_around_what_a_report_has_to_prove(site: Site) -> None:
    gateway = site.gateway
    await site.chip.administer(extend_pcr(0))
    up = gateway.up(newest=NEWEST)
    whole = msgspec.structs.replace(up, health=await gateway.answering(up))
    sealed = await gateway.sealed(site.cloud, whole)
    await site.exchange.answer_carried(sealed, now_ms=site.cloud.clock.now_ms())
    nothing_shown = await gateway.sealed(site.cloud, gateway.up())
    await site.exchange.answer_carried(nothing_shown, now_ms=site.cloud.clock.now_ms())
    ((_, code, _),) = await site.evidence()
    assert code == "image-unknown"
