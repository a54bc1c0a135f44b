"""Both answers to a copied request, kept to be read side by side."""

from conftest import STRATEGY


def test_pairs_that_agree_and_pairs_that_do_not_are_kept(stage):
    stage.version(2)
    stage.upstream("v2").behaves(degrades=0.5)
    # Nobody is taken back for it here, so that there is something of both kinds.
    strategy = STRATEGY | {"steps": [{"shadow": {"percent": 100, "for": "60s"}}]}
    with stage.load():
        release = stage.release("v2", strategy)

        def kinds() -> bool:
            return {pair["agrees"] for pair in stage.pages(f"/releases/{release}/pairs")} == {True, False}

        stage.wait("pairs of both kinds", kinds)
        different = stage.get(f"/releases/{release}/pairs?agrees=false&limit=5")["items"]
        assert different and not any(pair["agrees"] for pair in different)
        stage.command(release, "abort")
        stage.until(release, "rolled_back")
