// The official `openai` Node client, unmodified. SLUICE_URL names a running server
// that serves `helpdesk` and `all-minilm-l6-v2`; tests/python starts one.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

assert.ok(process.env.SLUICE_URL, "SLUICE_URL must name a running server");
const client = new OpenAI({ baseURL: `${process.env.SLUICE_URL}/v1`, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "My laptop LT-2207 cannot connect to the VPN, urgent" }];
const base = { model: "helpdesk", messages, temperature: 0 };

test("chat, whole and streamed, are equal", async () => {
  const whole = await client.chat.completions.create(base);
  assert.ok(JSON.parse(whole.choices[0].message.content).intent);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...base, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(text, whole.choices[0].message.content);
});

test("the stream helper assembles tool calls", async () => {
  const parameters = { type: "object", properties: { count: { type: "integer", minimum: 0, maximum: 9 } }, required: ["count"], additionalProperties: false };
  const tools = [{ type: "function", function: { name: "restart", parameters, strict: true } }];
  const stream = client.chat.completions.stream({ ...base, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 200 });
  const final = await stream.finalChatCompletion();
  const calls = final.choices[0].message.tool_calls;
  assert.equal(calls.length, 1);
  assert.ok(Number.isInteger(JSON.parse(calls[0].function.arguments).count));
});

test("a JSON schema holds", async () => {
  const schema = { type: "object", properties: { urgent: { type: "boolean" } }, required: ["urgent"], additionalProperties: false };
  const answer = await client.chat.completions.create({
    ...base,
    response_format: { type: "json_schema", json_schema: { name: "triage", strict: true, schema } },
  });
  assert.equal(typeof JSON.parse(answer.choices[0].message.content).urgent, "boolean");
});

test("logprobs", async () => {
  const answer = await client.chat.completions.create({ ...base, logprobs: true, top_logprobs: 2, max_tokens: 3 });
  assert.equal(answer.choices[0].logprobs.content.length, 3);
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model: "all-minilm-l6-v2", input: ["a", "b"] });
  assert.deepEqual(answer.data.map((item) => item.embedding.length), [384, 384]);
});

test("errors are the client's own classes", async () => {
  await assert.rejects(client.chat.completions.create({ ...base, model: "nope" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ ...base, temperature: 9 }), OpenAI.BadRequestError);
});

test("aborting a stream works", async () => {
  const controller = new AbortController();
  const stream = await client.chat.completions.create({ ...base, stream: true, max_tokens: 200 }, { signal: controller.signal });
  let seen = 0;
  for await (const _ of stream) {
    if (++seen === 3) controller.abort();
  }
  assert.ok(seen >= 3);
});
