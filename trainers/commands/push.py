"""`modalign push MODEL --repo ORG/NAME [--private] [--dry_run]`: a release on the Hugging Face hub."""

from __future__ import annotations

from ..console import console, print_table


def push(model: str, repo: str, private: bool = False, dry_run: bool = False) -> None:
    """Uploads a release, after checking that it is whole and names no folder of this machine.

    Args:
        model: A release, or a finished run folder.
        repo: Where on the hub, ORG/NAME; made if it is not there. Log in first with `hf auth login`.
        private: Make a new repository private.
        dry_run: Only list what would be sent; nothing is asked of the network.
    """
    from modalign.zoo.checkpoints.push import plan_upload
    from modalign.zoo.checkpoints.push import push as upload

    plan = plan_upload(model, repo)
    print_table(f"{model} -> hf:{repo}", ("file", "bytes"), [(name, f"{size:,}") for name, size in plan.files])
    if dry_run:
        console.print(f"{len(plan.files)} files, {plan.size / 1e6:.1f} MB; nothing was sent (dry run)")
        return
    place = upload(plan, private=private)
    console.print(f"{len(plan.files)} files, {plan.size / 1e6:.1f} MB: {place}")
