"""Help for tests of applications that use Mindia."""
