// Prints the keys of the first events of type tracking.started: node consumer.mjs BOOTSTRAP TOPIC COUNT [CODEC]
import kafkajs from "kafkajs";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;
const [bootstrap, topic, count, codec] = process.argv.slice(2);
const compress = async () => { throw new Error("only reads"); };

// the recipe of docs/your-own-broker.md
if (codec === "zstd") {
  const { decompress } = await import("fzstd");
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress, decompress: async (bytes) => Buffer.from(decompress(bytes)) });
}

const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING });
const consumer = kafka.consumer({ groupId: `${topic}-${process.pid}` });
consumer.on(consumer.events.CRASH, ({ payload }) => { console.error(payload.error.message); process.exit(1); });
await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
let read = 0;
await consumer.run({
  eachMessage: async ({ message }) => {
    if (message.headers.ce_type.toString() !== "tracking.started") return;
    console.log(message.key.toString(), JSON.parse(message.value).currentStatus);
    read += 1;
    if (read === Number(count)) process.exit(0);
  },
});
