import java.sql.*;
import java.util.Properties;

/** pgjdbc through the gateway. Arguments: how (direct or pooled), host, port, database, user, password, CA file. */
public class Clients {
  static void check(boolean held, String what) {
    if (!held) throw new AssertionError(what);
  }

  public static void main(String[] a) throws Exception {
    String url = "jdbc:postgresql://" + a[1] + ":" + a[2] + "/" + a[3];
    for (String assume : new String[] {null, "9.1"}) {
      Properties p = new Properties();
      p.setProperty("user", a[4]);
      p.setProperty("password", a[5]);
      p.setProperty("sslmode", "verify-ca");
      p.setProperty("sslrootcert", a[6]);
      p.setProperty("ApplicationName", "jdbc/1");
      p.setProperty("prepareThreshold", "2");
      if (assume != null) p.setProperty("assumeMinServerVersion", assume); // the name comes in the startup packet then
      try (Connection c = DriverManager.getConnection(url, p)) {
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int + 1, current_setting('application_name')")) {
          for (int i = 0; i < 10; i++) {
            s.setInt(1, i);
            try (ResultSet r = s.executeQuery()) {
              check(r.next() && r.getInt(1) == i + 1, "an answer");
              check(r.getString(2).equals("jdbc/1"), "application_name " + r.getString(2));
            }
          }
        }
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
          s.execute("CREATE TABLE jdbc_t (n int PRIMARY KEY)");
          try (PreparedStatement in = c.prepareStatement("INSERT INTO jdbc_t VALUES (?)")) {
            for (int i = 0; i < 500; i++) {
              in.setInt(1, i);
              in.addBatch();
            }
            in.executeBatch();
          }
          s.setFetchSize(50); // a portal, in pieces
          int n = 0;
          try (ResultSet r = s.executeQuery("SELECT n FROM jdbc_t")) {
            while (r.next()) n++;
          }
          check(n == 500, n + " rows");
          Savepoint before = c.setSavepoint();
          try {
            s.execute("INSERT INTO jdbc_t VALUES (1)");
            check(false, "a duplicate was taken");
          } catch (SQLException e) {
            check(e.getSQLState().equals("23505"), e.toString());
          }
          c.rollback(before);
        }
        c.rollback();
        c.setAutoCommit(true);
        try (Statement s = c.createStatement()) {
          s.setQueryTimeout(1); // cancels
          s.execute("SELECT pg_sleep(60)");
          check(false, "not cancelled");
        } catch (SQLException e) {
          check(e.getSQLState().equals("57014"), e.toString());
        }
        check(c.getMetaData().getTables(null, "public", "%", null) != null && c.isValid(5), "metadata");
      }
    }
    System.out.println("pgjdbc");
  }
}
