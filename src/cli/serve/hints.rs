//! What to try first, printed when the server is ready.

use sluice_gateway::router::{LocalModel, RouteTable, Target};

/// Three things to try, ready to paste (Python's lines start at the margin because
/// `-c` takes indentation seriously), with what is served: a `curl`, a Python snippet and a
/// command of our own. `None` when no model takes text.
///
/// Where keys are required, each takes the one in `SLUICE_API_KEY`.
pub(super) fn things_to_try(base: &str, routes: &RouteTable, keys: bool) -> Option<String> {
    let caller = if keys { &WITH_A_KEY } else { &ANYBODY };
    let names = |wanted: fn(&Target) -> bool| {
        let deployments = routes.deployments().iter();
        let found = deployments.filter(move |deployment| wanted(&deployment.target));
        found.map(|deployment| &*deployment.name).next()
    };
    let chat = names(|target| match target.model().as_deref() {
        Some(LocalModel::Language(model)) => model.template.is_some(),
        Some(_) => false,
        None => true,
    });
    let embedding = names(|target| match target.model().as_deref() {
        Some(LocalModel::Encoder(encoder)) => encoder.embeds(),
        _ => false,
    });
    match (chat, embedding) {
        (Some(model), _) => Some(chat_hints(base, model, caller)),
        (None, Some(model)) => Some(embedding_hints(base, model, caller)),
        (None, None) => None,
    }
}

/// How whoever tries says who he is.
struct Caller {
    intro: &'static str,
    curl: &'static str,
    import: &'static str,
    python: &'static str,
}

const ANYBODY: Caller = Caller {
    intro: "Try:",
    curl: "",
    import: "",
    python: "\"unused\"",
};

const WITH_A_KEY: Caller = Caller {
    intro: "Try, with a key of yours (export SLUICE_API_KEY=…):",
    curl: " -H \"authorization: Bearer $SLUICE_API_KEY\"",
    import: "import os\n",
    python: "os.environ[\"SLUICE_API_KEY\"]",
};

fn chat_hints(base: &str, model: &str, caller: &Caller) -> String {
    let Caller {
        intro,
        curl,
        import,
        python,
    } = caller;
    format!(
        r#"
{intro}

  curl {base}/v1/chat/completions -H 'content-type: application/json'{curl} \
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Ticket REQ-76109. My password for VPN no longer works!"}}]}}'

  python3 -c '
{import}from openai import OpenAI          # pip install openai
client = OpenAI(base_url="{base}/v1", api_key={python})
messages = [{{"role": "user", "content": "申请开通ERP系统的访问权限，不急！"}}]
print(client.chat.completions.create(model="{model}", messages=messages).choices[0].message.content)'

  {sluice} chat --url {base} -m {model} 'asset PC081745. Our new colleague needs access to ERP'
"#,
        sluice = own_path(),
    )
}

fn embedding_hints(base: &str, model: &str, caller: &Caller) -> String {
    let Caller {
        intro,
        curl,
        import,
        python,
    } = caller;
    format!(
        r#"
{intro}

  curl {base}/v1/embeddings -H 'content-type: application/json'{curl} \
    -d '{{"model": "{model}", "input": "The VPN is down"}}'

  python3 -c '
{import}from openai import OpenAI          # pip install openai
client = OpenAI(base_url="{base}/v1", api_key={python})
print(client.embeddings.create(model="{model}", input="The VPN is down").data[0].embedding[:4])'

  {sluice} embed --url {base} -m {model} 'The VPN is down' 'No connection to the VPN'
"#,
        sluice = own_path(),
    )
}

/// As the user would type it from here.
fn own_path() -> String {
    let invoked = std::env::args()
        .next()
        .unwrap_or_else(|| "sluice".to_owned());
    match std::env::current_dir() {
        Ok(here) => std::path::Path::new(&invoked)
            .strip_prefix(&here)
            .map_or(invoked.clone(), |path| path.display().to_string()),
        Err(_) => invoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_tried_says_who_asks() {
        for hints in [chat_hints, embedding_hints] {
            let text = hints("http://h", "m", &WITH_A_KEY);
            assert!(text.contains("-H \"authorization: Bearer $SLUICE_API_KEY\" \\\n"));
            assert!(text.contains("import os\nfrom openai"));
            assert!(text.contains("api_key=os.environ[\"SLUICE_API_KEY\"]"));
            let text = hints("http://h", "m", &ANYBODY);
            assert!(text.contains("api_key=\"unused\"") && !text.contains("SLUICE_API_KEY"));
        }
    }
}
