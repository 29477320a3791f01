// Runs one Elasticsearch node with the configuration of a folder until it is told to end. Called by ../elasticsearch.sh, with java's single-file mode.
// The runner's own main() hides every reason of a failure and takes ports of 9201 to 9299 only; hence this. It never chooses a setting itself.

import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;
import org.codelibs.elasticsearch.runner.ElasticsearchClusterRunner;

public final class Launcher {
    /** Arguments: the base folder, which holds config/elasticsearch.yml; the HTTP port, 0 for a free one. */
    public static void main(String[] arguments) throws Exception {
        Path base = Path.of(arguments[0]);
        ElasticsearchClusterRunner runner = new ElasticsearchClusterRunner();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                runner.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        runner.onBuild((number, settings) -> settings.put("http.port", arguments[1]));
        runner.build(
                "-basePath", base.toString(),
                "-confPath", base.resolve("config").toString(),
                "-dataPath", base.resolve("elasticsearch-data").toString(),
                "-logsPath", base.resolve("logs").toString(),
                "-clusterName", "standpipe-tests",
                "-numOfNode", "1");
        new CountDownLatch(1).await();
    }
}
