// A page with a chat, as useChat keeps one: AbstractChat is what it is made of.
import { AbstractChat, DefaultChatTransport } from "ai";
import { serve } from "./commands.mjs";

class State {
  status = "ready";
  error = undefined;
  constructor(messages) {
    this.messages = messages;
  }
  pushMessage = (message) => this.messages.push(message);
  popMessage = () => this.messages.pop();
  replaceMessage = (index, message) => (this.messages[index] = this.snapshot(message));
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {}

let chat;
let reason;

const shown = () => ({
  messages: chat.messages,
  status: chat.status,
  error: chat.error && String(chat.error.message),
  reason,
});

serve({
  async open({ api, id, headers }) {
    const response = await fetch(`${api}/${id}/messages`, { headers });
    chat = new Chat({
      id,
      transport: new DefaultChatTransport({ api, headers }),
      state: new State(await response.json()),
      onFinish: ({ finishReason }) => (reason = finishReason),
    });
    return shown();
  },
  async send({ message, ...options }) {
    await chat.sendMessage(message, options);
    return shown();
  },
  async regenerate(options) {
    await chat.regenerate(options);
    return shown();
  },
  async resume() {
    await chat.resumeStream();
    return shown();
  },
  async answer(output) {
    await chat.addToolOutput(output);
    return shown();
  },
  async stop() {
    await chat.stop();
    return shown();
  },
  async shown() {
    return shown();
  },
  async pretend({ messages }) {
    chat.messages.splice(0, chat.messages.length, ...messages);
    return shown();
  },
});
