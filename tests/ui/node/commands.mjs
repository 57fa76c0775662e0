// Commands as lines of JSON, and an answer to each: {number, does, ...} -> {number, ...}, with "failed" if it did.
import { createInterface } from "node:readline";

export function serve(commands) {
  createInterface({ input: process.stdin }).on("line", async (line) => {
    const { number, does, ...options } = JSON.parse(line);
    let answer;
    try {
      answer = await commands[does](options);
    } catch (error) {
      answer = { failed: String(error) };
    }
    process.stdout.write(JSON.stringify({ number, ...answer }) + "\n");
  });
}
