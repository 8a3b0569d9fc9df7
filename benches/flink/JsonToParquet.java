import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.io.OutputStream;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.stream.Stream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.BasePathBucketAssigner;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.parquet.hadoop.ParquetWriter;
import org.apache.parquet.hadoop.api.WriteSupport;
import org.apache.parquet.hadoop.metadata.CompressionCodecName;
import org.apache.parquet.io.OutputFile;
import org.apache.parquet.io.PositionOutputStream;
import org.apache.parquet.io.api.Binary;
import org.apache.parquet.io.api.RecordConsumer;
import org.apache.parquet.schema.MessageType;
import org.apache.parquet.schema.MessageTypeParser;

/**
 * JSON lines to Parquet on Apache Flink: `JsonToParquet INPUT OUTPUT RUNS rows|objects`.
 *
 * `rows`: a table of Flink's file system connector with its own JSON format, as rows. `objects`: lines, each read by Jackson into an
 * object. Both: parallelism 1, object reuse, a checkpoint every ten seconds, parquet-java with Snappy. The support for writing does
 * what flink-parquet's does, which is in no package that this needs otherwise. Each run but the last warms the JVM up.
 */
public final class JsonToParquet {
    private static final String[] COLUMNS = {
        "event_time", "user_id", "url", "device", "country", "duration_ms", "spend", "is_buyer"};
    private static final MessageType SCHEMA = MessageTypeParser.parseMessageType(
        "message click { required binary event_time (UTF8); required binary user_id (UTF8); required binary url (UTF8);"
            + " optional binary device (UTF8); required binary country (UTF8); required int64 duration_ms;"
            + " required double spend; required boolean is_buyer; }");

    public static final class Click {
        public String event_time;
        public String user_id;
        public String url;
        public String device;
        public String country;
        public long duration_ms;
        public double spend;
        public boolean is_buyer;
    }

    /** Tells the consumer the fields of a record, one by one. */
    interface Fields<T> extends java.io.Serializable {
        void write(T record, Columns to);
    }

    static final class Columns {
        private final RecordConsumer consumer;

        Columns(RecordConsumer consumer) {
            this.consumer = consumer;
        }

        void binary(int field, Binary value) {
            consumer.startField(COLUMNS[field], field);
            consumer.addBinary(value);
            consumer.endField(COLUMNS[field], field);
        }

        void rest(long duration, double spend, boolean isBuyer) {
            consumer.startField(COLUMNS[5], 5);
            consumer.addLong(duration);
            consumer.endField(COLUMNS[5], 5);
            consumer.startField(COLUMNS[6], 6);
            consumer.addDouble(spend);
            consumer.endField(COLUMNS[6], 6);
            consumer.startField(COLUMNS[7], 7);
            consumer.addBoolean(isBuyer);
            consumer.endField(COLUMNS[7], 7);
        }
    }

    static final class Support<T> extends WriteSupport<T> {
        private final Fields<T> fields;
        private RecordConsumer consumer;
        private Columns columns;

        Support(Fields<T> fields) {
            this.fields = fields;
        }

        @Override
        public WriteContext init(org.apache.hadoop.conf.Configuration configuration) {
            return new WriteContext(SCHEMA, new HashMap<>());
        }

        @Override
        public void prepareForWrite(RecordConsumer recordConsumer) {
            consumer = recordConsumer;
            columns = new Columns(recordConsumer);
        }

        @Override
        public void write(T record) {
            consumer.startMessage();
            fields.write(record, columns);
            consumer.endMessage();
        }
    }

    static final class Builder<T> extends ParquetWriter.Builder<T, Builder<T>> {
        private final Fields<T> fields;

        Builder(OutputFile file, Fields<T> fields) {
            super(file);
            this.fields = fields;
        }

        @Override
        protected Builder<T> self() {
            return this;
        }

        @Override
        protected WriteSupport<T> getWriteSupport(org.apache.hadoop.conf.Configuration configuration) {
            return new Support<>(fields);
        }
    }

    static final class Positioned extends PositionOutputStream {
        private final FSDataOutputStream out;

        Positioned(FSDataOutputStream out) {
            this.out = out;
        }

        @Override
        public long getPos() throws IOException {
            return out.getPos();
        }

        @Override
        public void write(int b) throws IOException {
            out.write(b);
        }

        @Override
        public void write(byte[] bytes, int offset, int length) throws IOException {
            out.write(bytes, offset, length);
        }

        @Override
        public void flush() throws IOException {
            out.flush();
        }
    }

    static final class Factory<T> implements BulkWriter.Factory<T> {
        private final Fields<T> fields;

        Factory(Fields<T> fields) {
            this.fields = fields;
        }

        @Override
        public BulkWriter<T> create(FSDataOutputStream out) throws IOException {
            OutputFile file = new OutputFile() {
                @Override
                public PositionOutputStream create(long blockSize) {
                    return new Positioned(out);
                }

                @Override
                public PositionOutputStream createOrOverwrite(long blockSize) {
                    return new Positioned(out);
                }

                @Override
                public boolean supportsBlockSize() {
                    return false;
                }

                @Override
                public long defaultBlockSize() {
                    return 0;
                }
            };
            ParquetWriter<T> writer =
                new Builder<>(file, fields).withCompressionCodec(CompressionCodecName.SNAPPY).build();
            return new BulkWriter<T>() {
                @Override
                public void addElement(T element) throws IOException {
                    writer.write(element);
                }

                @Override
                public void flush() {}

                @Override
                public void finish() throws IOException {
                    writer.close();
                }
            };
        }
    }

    private static void rowFields(RowData row, Columns to) {
        for (int field = 0; field < 5; field++) {
            if (field == 3 && row.isNullAt(3)) {
                continue;
            }
            to.binary(field, Binary.fromReusedByteArray(row.getString(field).toBytes()));
        }
        to.rest(row.getLong(5), row.getDouble(6), row.getBoolean(7));
    }

    private static void clickFields(Click click, Columns to) {
        to.binary(0, Binary.fromString(click.event_time));
        to.binary(1, Binary.fromString(click.user_id));
        to.binary(2, Binary.fromString(click.url));
        if (click.device != null) {
            to.binary(3, Binary.fromString(click.device));
        }
        to.binary(4, Binary.fromString(click.country));
        to.rest(click.duration_ms, click.spend, click.is_buyer);
    }

    private static <T> FileSink<T> sink(String output, Fields<T> fields) {
        return FileSink.forBulkFormat(new org.apache.flink.core.fs.Path(output), new Factory<>(fields))
            .withBucketAssigner(new BasePathBucketAssigner<>())
            .withRollingPolicy(OnCheckpointRollingPolicy.build())
            .build();
    }

    private static final ObjectMapper JSON = new ObjectMapper();

    private static void run(String input, String output, String how) throws Exception {
        Configuration configuration = new Configuration();
        configuration.setString("taskmanager.memory.network.max", "64m");
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(1, configuration);
        env.getConfig().enableObjectReuse();
        env.enableCheckpointing(10_000);
        if (how.equals("rows")) {
            StreamTableEnvironment tables = StreamTableEnvironment.create(env);
            tables.executeSql("CREATE TABLE clicks (event_time STRING NOT NULL, user_id STRING NOT NULL, url STRING NOT NULL, device STRING,"
                + " country STRING NOT NULL, duration_ms BIGINT NOT NULL, spend DOUBLE NOT NULL, is_buyer BOOLEAN NOT NULL) WITH ("
                + "'connector' = 'filesystem', 'path' = 'file://" + input + "', 'format' = 'json')");
            tables.toDataStream(tables.from("clicks"), DataTypes.ROW(
                    DataTypes.FIELD("event_time", DataTypes.STRING().notNull()),
                    DataTypes.FIELD("user_id", DataTypes.STRING().notNull()),
                    DataTypes.FIELD("url", DataTypes.STRING().notNull()),
                    DataTypes.FIELD("device", DataTypes.STRING()),
                    DataTypes.FIELD("country", DataTypes.STRING().notNull()),
                    DataTypes.FIELD("duration_ms", DataTypes.BIGINT().notNull()),
                    DataTypes.FIELD("spend", DataTypes.DOUBLE().notNull()),
                    DataTypes.FIELD("is_buyer", DataTypes.BOOLEAN().notNull())).notNull().bridgedTo(RowData.class))
                .map(row -> (RowData) row)
                .returns(RowData.class)
                .sinkTo(sink(output, JsonToParquet::rowFields));
        } else {
            FileSource<String> lines = FileSource
                .forRecordStreamFormat(new TextLineInputFormat(), new org.apache.flink.core.fs.Path(input))
                .build();
            env.fromSource(lines, WatermarkStrategy.noWatermarks(), "lines")
                .map(line -> JSON.readValue(line, Click.class))
                .returns(Types.POJO(Click.class))
                .sinkTo(sink(output, JsonToParquet::clickFields));
        }
        env.execute();
    }

    private static long bytes(Path directory) throws IOException {
        try (Stream<Path> files = Files.walk(directory)) {
            return files.filter(Files::isRegularFile).mapToLong(file -> file.toFile().length()).sum();
        }
    }

    /** A line as the peers' scripts print them: case system parallelism bytes seconds bytes_per_s cpu_s= ev_per_cpu_s=. */
    public static void main(String[] arguments) throws Exception {
        int runs = Integer.parseInt(arguments[2]);
        String how = arguments[3];
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long input = bytes(Path.of(arguments[0]));
        for (int number = 1; number <= runs; number++) {
            String output = arguments[1] + "/" + how + "-" + number;
            long begin = system.getProcessCpuTime();
            long clock = System.nanoTime();
            run(arguments[0], output, how);
            double cpu = (system.getProcessCpuTime() - begin) / 1e9;
            double seconds = (System.nanoTime() - clock) / 1e9;
            if (bytes(Path.of(output)) < input / 10) {
                throw new IllegalStateException("only " + bytes(Path.of(output)) + " bytes were written");
            }
            if (number == runs) {
                System.out.printf("json_to_parquet.%s flink 1 %d %.2f %.0f cpu_s=%.2f ev_per_cpu_s=%.0f%n",
                    how, input, seconds, input / seconds, cpu, input / cpu);
            }
        }
    }
}
