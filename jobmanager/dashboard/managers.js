// The machines: task managers with their slots and what they take of their machine, and the job managers.

import { get } from "./api.js";
import { h } from "./dom.js";
import { ago, bytes, count, duration, percent, UNKNOWN } from "./format.js";
import { remember } from "./live.js";
import { card, state } from "./parts.js";
import { table } from "./table.js";

/** The page. */
export const managers = () => ({
  key: "managers",
  title: () => "Managers · Thalweg",
  load: async (signal) => {
    const cluster = await get("/thalweg/cluster", signal);
    remember(cluster);
    return cluster;
  },
  render,
});

const share = (value) => (value === null || value === undefined ? UNKNOWN : percent(value / 100));
const process = (field) => (manager) => manager.process?.[field];

function render(cluster) {
  const now = cluster.now_ms;
  return h("div", { class: "stack" },
    h("h1", null, "Managers"),
    card("Task managers", "with their workers, as they told with their last heartbeat", table({
      name: "task-managers",
      label: "Task managers",
      rows: cluster.task_managers,
      key: (manager) => manager.id,
      empty: "None is connected. Start one: taskmanager --jobmanagers HOST:PORT",
      columns: [
        { name: "Name", value: (manager) => manager.id, cell: (manager) => manager.id, class: "wide" },
        { name: "Host", value: (manager) => manager.host, cell: (manager) => manager.host },
        { name: "Slots free", number: true, value: (manager) => manager.slots_free, cell: (manager) => `${count(manager.slots_free)} of ${count(manager.slots_total)}` },
        { name: "CPU", number: true, hint: "Of the cores that it may use", value: process("cpu_percent"), cell: (manager) => share(manager.process?.cpu_percent) },
        { name: "Memory", number: true, hint: "General memory: without managed memory", value: process("heap_used_bytes"), cell: (manager) => manager.process ? `${bytes(manager.process.heap_used_bytes)} of ${bytes(manager.process.heap_total_bytes)}` : UNKNOWN },
        { name: "Container CPU", number: true, value: process("container_cpu_percent"), cell: (manager) => share(manager.process?.container_cpu_percent) },
        { name: "Container memory", number: true, value: process("container_memory_percent"), cell: (manager) => share(manager.process?.container_memory_percent) },
        { name: "Disk", number: true, value: process("container_disk_percent"), cell: (manager) => share(manager.process?.container_disk_percent) },
        { name: "Threads", number: true, value: process("threads"), cell: (manager) => count(manager.process?.threads) },
        { name: "Heartbeat", number: true, value: (manager) => manager.last_heartbeat_ms, cell: (manager) => ago(now, manager.last_heartbeat_ms) },
        { name: "Connected for", number: true, value: (manager) => -manager.connected_since_ms, cell: (manager) => duration(now - manager.connected_since_ms) },
        { name: "Labels", cell: (manager) => manager.labels.join(", ") || UNKNOWN },
      ],
    })),
    card("Job managers", `term ${cluster.term}`, table({
      name: "job-managers",
      label: "Job managers",
      rows: cluster.job_managers,
      key: (manager) => manager.id,
      empty: "None is known.",
      columns: [
        { name: "Number", number: true, cell: (manager) => manager.id },
        { name: "Address", cell: (manager) => manager.address, class: "wide" },
        { name: "Role", cell: (manager) => (manager.leader ? h("b", null, "leader") : manager.voter ? "follower" : "catches up") },
      ],
    })));
}
