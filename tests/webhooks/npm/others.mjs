// Reads webhooks as JSON lines {secret, headers, body}; says of each whether npm's standardwebhooks verifies
// it, and how it would sign it.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  const webhook = new Webhook(secret);
  let verified = true;
  try {
    webhook.verify(body, headers);
  } catch {
    verified = false;
  }
  const at = new Date(Number(headers["webhook-timestamp"]) * 1000);
  console.log(JSON.stringify({ verified, signature: webhook.sign(headers["webhook-id"], at, body) }));
}
