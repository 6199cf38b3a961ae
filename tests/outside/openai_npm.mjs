// What the npm client `openai` reads of a server, as JSON: one answer whole, the same streamed, and
// an error. Arguments: the folder where the client is installed, the server's URL, its model.
import { createRequire } from "node:module";

const [folder, url, model] = process.argv.slice(2);
const OpenAI = createRequire(`${folder}/`)("openai").default;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const asked = {
  model,
  messages: [{ role: "user", content: "Name three rivers." }],
  max_tokens: 24,
  temperature: 0,
};

const whole = await client.chat.completions.create(asked);
const chunks = [];
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
  chunks.push(chunk);
}
const error = await client.chat.completions
  .create({ ...asked, temperature: -1 })
  .catch((raised) => raised);

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    usage: whole.usage,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    reasons: chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason)),
    last: chunks.at(-1).usage,
    error: { kind: error.constructor.name, status: error.status, param: error.param },
    models: (await client.models.list()).data.map((each) => each.id),
  }),
);
