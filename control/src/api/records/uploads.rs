//! Files on their way in, in parts, and artifacts made of them. The bytes of a part are the body itself.

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::datasets::check_digest;
use super::models::home;
use crate::api::body::Sent;
use crate::api::call::{Answer, Body, Call, Desk, NoBody, NoQuery};
use crate::api::caller::Caller;
use crate::api::input::check_name;
use crate::api::problem::Problem;
use crate::api::registry::{Registry, get, post, put};
use crate::api::resource::{Resource, filter, list};
use crate::artifacts::{Begun, Digest, NewArtifact, NewUpload, PartAt};
use crate::domain::record::{Artifact, ArtifactKind, Upload};
use crate::domain::roles::Verb;
use crate::domain::upload::UploadState;
use crate::store::{Column as _, Listing, Stored, UploadPart};

pub(crate) fn serve_all(api: &mut Registry) {
    use Verb::EditCatalogue;
    api.route(
        get("/uploads", EditCatalogue, "List one's uploads"),
        list::<Upload>,
    );
    api.route(
        post(
            "/uploads",
            EditCatalogue,
            "Begin the upload of a file, or go on with an earlier one of the same path, size and digest",
        ),
        begin,
    );
    api.route(
        get(
            "/uploads/{id}",
            EditCatalogue,
            "Show an upload with the parts that have arrived",
        ),
        show,
    );
    api.bytes(
        put(
            "/uploads/{id}/parts/{number}",
            EditCatalogue,
            "Send a part, counted from 0; one that comes again replaces the earlier",
        ),
        put_part,
    );
    api.route(
        post(
            "/uploads/{id}/complete",
            EditCatalogue,
            "Join the parts of an upload, and check the whole",
        ),
        complete,
    );
    api.route(
        post("/uploads/{id}/abort", EditCatalogue, "Give an upload up"),
        abort,
    );
    api.route(
        post(
            "/artifacts",
            EditCatalogue,
            "Make an artifact of completed uploads",
        ),
        make,
    );
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NoUploadFields")]
pub(crate) struct NoFields {}

filter!(UploadFilter {
    /// Those in this state.
    state: UploadState,
    /// The file's path in the artifact.
    path: String,
});

impl Resource for Upload {
    type Fields = NoFields;
    type Filter = UploadFilter;
    const COLLECTION: &'static str = "/uploads";
    const ITEM: &'static str = "/uploads/{id}";
    const NAME: &'static str = "id";
    const EDIT: Verb = Verb::EditCatalogue;
    const VIEW: Verb = Verb::EditCatalogue;

    /// An upload is its sender's own: what it will be is not said yet, nor how secret.
    fn restrict(listing: Listing<Self>, caller: &Caller) -> Listing<Self> {
        if caller.is_admin() {
            listing
        } else {
            listing.is("principal", &caller.principal)
        }
    }

    async fn select(
        _: &Desk,
        filter: &UploadFilter,
        listing: Listing<Self>,
    ) -> Result<Listing<Self>, Problem> {
        Ok(listing
            .is_if("state", filter.state.as_ref())
            .is_if("path", filter.path.as_ref()))
    }

    fn fields(&self) -> NoFields {
        NoFields {}
    }

    async fn build(_: &Desk, _: &NoFields, current: Option<&Self>) -> Result<Self, Problem> {
        current
            .cloned()
            .ok_or_else(|| Problem::bad_request("an upload is begun by POST /uploads"))
    }
}

/// An upload with what has arrived of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UploadView {
    #[serde(flatten)]
    upload: Stored<Upload>,
    /// The size of every part but the last.
    part_bytes: u64,
    /// What has arrived; empty once it is completed.
    parts: Vec<UploadPart>,
}

async fn viewed(desk: &Desk, upload: Stored<Upload>) -> Result<Answer<UploadView>, Problem> {
    let version = Some(upload.version);
    let view = UploadView {
        part_bytes: upload.part_bytes().unwrap_or_default(),
        parts: desk.store.upload_parts(upload.id).await?,
        upload,
    };
    Ok(Answer {
        version,
        ..Answer::of(view)
    })
}

/// A file to come.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadFields {
    /// The file's path in the artifact: relative, with forward slashes.
    #[schemars(example = &"model.safetensors")]
    path: String,
    /// Bytes of the whole, if known.
    #[serde(default)]
    #[schemars(example = 1_048_576)]
    bytes: Option<u64>,
    /// `sha256:` and 64 hexadecimal digits, if known. With it and the size an upload that broke off goes on, and a file
    /// that the caller may read here already is completed at once.
    #[serde(default)]
    #[schemars(example = &"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    digest: Option<String>,
    /// The size of every part but the last; the server's own if absent.
    #[serde(default)]
    #[schemars(example = 8_388_608)]
    part_bytes: Option<u64>,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    department: Option<String>,
}

async fn begin(call: Call<NoQuery, Body<UploadFields>>) -> Result<Answer<UploadView>, Problem> {
    let (desk, fields) = (&call.desk, &call.body.0);
    let digest = match &fields.digest {
        Some(text) => {
            check_digest("digest", text)?;
            text.parse::<Digest>().ok()
        }
        None => None,
    };
    let new = NewUpload {
        department: home(desk, fields.department.as_deref()).await?,
        principal: Some(desk.caller.principal),
        path: fields.path.clone(),
        bytes: fields.bytes,
        digest,
        part_bytes: fields.part_bytes,
    };
    let known = match (digest, fields.bytes) {
        (Some(digest), Some(bytes)) => may_read(desk, digest, bytes).await?,
        _ => false,
    };
    let begun = desk
        .open()?
        .artifacts
        .begin_upload(&desk.actor(), new, known)
        .await?;
    match begun {
        Begun::Resumed(upload) => viewed(desk, upload).await,
        Begun::New(upload) => {
            let place = format!("/uploads/{}", upload.id);
            Ok(viewed(desk, upload).await?.at(place))
        }
    }
}

/// Whether the caller can get at a file with these bytes here: in an artifact that it sees, or one that it sent.
async fn may_read(desk: &Desk, digest: Digest, bytes: u64) -> Result<bool, Problem> {
    let Ok(bytes) = i64::try_from(bytes) else {
        return Ok(false);
    };
    let digest = digest.to_string();
    let values = || vec![digest.to_value(), bytes.to_value()];
    let artifacts = Artifact::restrict(Listing::new(), &desk.caller)
        .where_clause(
            "id IN (SELECT f.artifact FROM artifact_files f WHERE f.blob = ? AND f.bytes = ?)"
                .into(),
            values(),
        )
        .limit(1);
    if !desk.store.list(&artifacts).await?.items.is_empty() {
        return Ok(true);
    }
    let uploads = Listing::<Upload>::new()
        .is("principal", &desk.caller.principal)
        .where_clause("blob = ? AND received_bytes = ?".into(), values())
        .limit(1);
    Ok(!desk.store.list(&uploads).await?.items.is_empty())
}

async fn found<B: Sync>(call: &Call<NoQuery, B>) -> Result<Stored<Upload>, Problem> {
    call.desk.find::<Upload>(call.segment("id")).await
}

async fn show(call: Call) -> Result<Answer<UploadView>, Problem> {
    let upload = found(&call).await?;
    viewed(&call.desk, upload).await
}

async fn put_part(
    call: Call<NoQuery, Sent>,
    headers: HeaderMap,
) -> Result<Answer<UploadPart>, Problem> {
    let Call {
        desk, path, body, ..
    } = call;
    let segment = |name: &str| path.get(name).map_or("", String::as_str);
    let upload = desk.find::<Upload>(segment("id")).await?;
    let number = segment("number")
        .parse()
        .map_err(|_| Problem::bad_request("number: should be a whole number from 0"))?;
    let digest = content_digest(&headers)?;
    let artifacts = &desk.open()?.artifacts;
    let part = artifacts
        .put_part(upload.id, PartAt::Number(number), digest, body)
        .await?;
    Ok(Answer::of(part))
}

/// `Content-Digest: sha-256=:BASE64:` of RFC 9530; other algorithms are passed over, as it says.
fn content_digest(headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
    use base64::Engine as _;
    let Some(value) = headers.get("content-digest") else {
        return Ok(None);
    };
    let wrong =
        || Problem::bad_request("Content-Digest: should be like sha-256=:BASE64 OF 32 BYTES:");
    let text = value.to_str().map_err(|_| wrong())?;
    let sha256 = text
        .split(',')
        .find_map(|part| part.trim().strip_prefix("sha-256="));
    let Some(sha256) = sha256 else {
        return Ok(None);
    };
    let bytes = sha256
        .strip_prefix(':')
        .and_then(|rest| rest.strip_suffix(':'))
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(wrong)?;
    Ok(Some(Digest::from_bytes(bytes)))
}

async fn complete(call: Call<NoQuery, NoBody>) -> Result<Answer<UploadView>, Problem> {
    let upload = found(&call).await?;
    let desk = &call.desk;
    let artifacts = &desk.open()?.artifacts;
    let upload = artifacts.complete_upload(&desk.actor(), upload.id).await?;
    viewed(desk, upload).await
}

async fn abort(call: Call<NoQuery, NoBody>) -> Result<Answer<UploadView>, Problem> {
    let upload = found(&call).await?;
    let desk = &call.desk;
    let artifacts = &desk.open()?.artifacts;
    let upload = artifacts.abort_upload(&desk.actor(), upload.id).await?;
    viewed(desk, upload).await
}

/// A file of an artifact.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadedFile {
    /// The id of a completed upload of one's own.
    #[schemars(example = &"upl_01kbeqw3c8f0v5m2n4p6r8t0ab")]
    upload: String,
    /// Its path in the artifact; the upload's if absent.
    #[serde(default)]
    #[schemars(example = &"rows.jsonl")]
    path: Option<String>,
}

/// An artifact to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewArtifactFields {
    /// What it is called: 1 to 128 letters, digits, dots, hyphens and underscores.
    #[schemars(length(min = 1, max = 128), example = &"helpdesk-v2")]
    name: String,
    /// What it is for.
    #[schemars(example = &"checkpoint")]
    kind: ArtifactKind,
    /// Whose it is, by id or name; the caller's own department if absent.
    #[serde(default)]
    #[schemars(example = &"it")]
    department: Option<String>,
    /// The files that it is made of.
    #[schemars(length(min = 1), example = json!([{ "upload": "upl_01kbeqw3c8f0v5m2n4p6r8t0ab" }]))]
    files: Vec<UploadedFile>,
}

async fn make(
    call: Call<NoQuery, Body<NewArtifactFields>>,
) -> Result<Answer<Stored<Artifact>>, Problem> {
    let Call { desk, body, .. } = call;
    let fields = body.0;
    check_name("name", &fields.name)?;
    let new = NewArtifact {
        department: home(&desk, fields.department.as_deref()).await?,
        kind: fields.kind,
        name: fields.name,
        source: None,
    };
    let mut uploads = Vec::with_capacity(fields.files.len());
    for (index, file) in fields.files.into_iter().enumerate() {
        let field = format!("files[{index}].upload");
        uploads.push((desk.refer::<Upload>(&field, &file.upload).await?, file.path));
    }
    let artifacts = &desk.open()?.artifacts;
    let artifact = artifacts
        .artifact_of_uploads(&desk.actor(), new, uploads)
        .await?;
    let place = format!("/artifacts/{}", artifact.id);
    Ok(Answer::record(artifact).at(place))
}
