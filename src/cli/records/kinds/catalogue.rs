//! What models are made of: versions, data, trainings, conversions, content.

use super::{
    DATA_VERSIONS, GATE, Kind, ONE, REQUIREMENTS, RUNS, Special, VERSION, VERSIONS, Writes, act,
    list,
};

pub(super) const MODEL: Kind = Kind {
    noun: "model",
    about: "Models and their versions",
    path: "/models",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("DESCRIPTION", "description"),
        ("TRAINED WITH", "train_framework"),
        ("UPDATED", "updated_at"),
        ("ID", "id"),
    ],
    specials: &[
        list(
            "versions",
            "List a model's versions",
            "/models/{0}/versions",
            VERSIONS,
        ),
        act(
            "add-version",
            "Add the next version: note=… training_run=… datasets=…",
            "NAME",
            "/models/{0}/versions",
        ),
        act(
            "register",
            "Register a draft's content: artifact=… or digest=…",
            VERSION,
            "/models/{0}/versions/{1}/register",
        ),
        act(
            "link",
            "Add a dataset version to the lineage: dataset=name@v1 use_of=train",
            VERSION,
            "/models/{0}/versions/{1}/datasets",
        ),
        act(
            "request-approval",
            "Ask for approval after a passed evaluation",
            VERSION,
            "/models/{0}/versions/{1}/request_approval",
        ),
        act(
            "request-override",
            "Ask for approval in spite of a failed one: reason=…",
            VERSION,
            "/models/{0}/versions/{1}/request_override",
        ),
        act(
            "approve",
            "Approve, if the gate is open: deployment=… override_reason=…",
            VERSION,
            "/models/{0}/versions/{1}/approve",
        ),
        act(
            "reject",
            "Reject: reason=…",
            VERSION,
            "/models/{0}/versions/{1}/reject",
        ),
        act(
            "invalidate",
            "Send back to registered: reason=…",
            VERSION,
            "/models/{0}/versions/{1}/invalidate",
        ),
        act(
            "archive",
            "Archive a version that is not live, no candidate, and not what a roll-back would bring back",
            VERSION,
            "/models/{0}/versions/{1}/archive",
        ),
        act(
            "unarchive",
            "Take the archiving of a version back",
            VERSION,
            "/models/{0}/versions/{1}/unarchive",
        ),
        list(
            "requirements",
            "List the evaluations that a model and its deployments require",
            "/models/{0}/requirements",
            REQUIREMENTS,
        ),
        act(
            "require",
            "Require an evaluation of every version, as it stands now: evaluation=… reason=…",
            "NAME",
            "/models/{0}/require",
        ),
        act(
            "unrequire",
            "Require an evaluation no more, unless a version of your own is under way: evaluation=… reason=…",
            "NAME",
            "/models/{0}/unrequire",
        ),
        Special {
            verb: GATE,
            about: "Show what the approval gate misses of a version: deployment=…",
            argument: VERSION,
            method: "GET",
            path: "/models/{0}/versions/{1}/gate",
            columns: ONE,
            begins: false,
        },
        list(
            "prompts",
            "List a model's prompt versions",
            "/models/{0}/prompts",
            &[
                ("NAME", "name"),
                ("VERSION", "number"),
                ("NOTE", "note"),
                ("ID", "id"),
            ],
        ),
        act(
            "add-prompt",
            "Add the next version of a prompt: name=… template=@file",
            "NAME",
            "/models/{0}/prompts",
        ),
    ],
    examples: "  sluice model create helpdesk description='IT questions' train_framework=pytorch\n  sluice model show helpdesk\n  sluice model add-version helpdesk note='first try'\n  sluice model convert helpdesk --pipeline convert-causal-lm --source checkpoints/v2 precision=int8 --add-version\n  sluice model require helpdesk evaluation=safety\n  sluice model gate helpdesk@v2\n  sluice model approve helpdesk@v2",
};

pub(super) const DATASET: Kind = Kind {
    noun: "dataset",
    about: "Datasets and their versions",
    path: "/datasets",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("MODALITY", "modality"),
        ("SECRECY", "secrecy"),
        ("SOURCE", "source"),
        ("ID", "id"),
    ],
    specials: &[
        list(
            "versions",
            "List a dataset's versions",
            "/datasets/{0}/versions",
            DATA_VERSIONS,
        ),
        act(
            "add-version",
            "Register the next version: artifact=… or digest=… row_count=…",
            "NAME",
            "/datasets/{0}/versions",
        ),
    ],
    examples: "  sluice dataset create tickets secrecy=internal source=hdfs://…\n  sluice dataset add-version tickets digest=sha256:… row_count=1200\n  sluice dataset versions tickets",
};

pub(super) const TRAIN: Kind = Kind {
    noun: "train",
    about: "Trainings and their runs",
    path: "/trainings",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("MODEL", "model"),
        ("RECIPE", "recipe"),
        ("ID", "id"),
    ],
    specials: &[
        list(
            "runs",
            "List a training's runs",
            "/trainings/{0}/runs",
            RUNS,
        ),
        act(
            "add-run",
            "Register a run: params='{…}' inputs='{…}'",
            "NAME",
            "/trainings/{0}/runs",
        ),
        act(
            "start-run",
            "Tell that a run began",
            "ID",
            "/training_runs/{0}/start",
        ),
        act(
            "finish-run",
            "Tell that a run succeeded: metrics='{…}' artifact=…",
            "ID",
            "/training_runs/{0}/succeed",
        ),
        act(
            "fail-run",
            "Tell that a run failed: error=…",
            "ID",
            "/training_runs/{0}/fail",
        ),
        act(
            "cancel-run",
            "Tell that a run was given up",
            "ID",
            "/training_runs/{0}/cancel",
        ),
    ],
    examples: "  sluice train create nightly model=helpdesk recipe='python train.py' datasets='[\"tickets@v1\"]'\n  sluice train add-run nightly params='{\"lr\": 0.0001}'\n  sluice train finish-run trr_… metrics='{\"loss\": 1.2}'",
};

pub(super) const CONVERT: Kind = Kind {
    noun: "convert",
    about: "Conversion runs and their parity reports",
    path: "/conversions",
    writes: Writes::None,
    columns: &[
        ("ID", "id"),
        ("MODEL", "model"),
        ("FROM", "source_framework"),
        ("FORMAT", "number_format"),
        ("STATUS", "status"),
        ("PARITY", "parity_passed"),
    ],
    specials: &[Special {
        argument: "",
        ..list(
            "pipelines",
            "List the pipelines that convert",
            "/pipelines",
            &[
                ("NAME", "name"),
                ("FROM", "framework"),
                ("SUMMARY", "summary"),
            ],
        )
    }],
    examples: "  sluice convert pipelines\n  sluice convert list model=helpdesk\n  sluice convert show cnr_… -o json",
};

pub(super) const ARTIFACT: Kind = Kind {
    noun: "artifact",
    about: "Artifacts: sets of files by digest",
    path: "/artifacts",
    writes: Writes::None,
    columns: &[
        ("NAME", "name"),
        ("KIND", "kind"),
        ("FILES", "files"),
        ("BYTES", "bytes"),
        ("DIGEST", "digest"),
        ("ID", "id"),
    ],
    specials: &[
        list(
            "files",
            "List an artifact's files",
            "/artifacts/{0}/files",
            &[("PATH", "path"), ("BYTES", "bytes"), ("DIGEST", "blob")],
        ),
        list(
            "references",
            "List what needs an artifact",
            "/artifacts/{0}/references",
            &[("KIND", "owner_kind"), ("WHICH", "owner_id")],
        ),
    ],
    examples: "  sluice artifact push checkpoints/v2 --name helpdesk-v2 --kind checkpoint\n  sluice artifact import https://example.com/model.tar.gz --name m --unpack --wait\n  sluice artifact pull art_… folder\n  sluice artifact list kind=model\n  sluice artifact files art_…",
};
